"""SimCLR with turns by 0, 90, 180 or 270 degrees besides, ResNet-50, ImageNet-1k: an ablation of Chen et al. (ICML 2020).

bash tools/dist_train.sh configs/simclr/r50_rotation.py 8
No published result for linear probes. Not measured by us.
In the paper the turn is read off h with 67.6 %, off z with 25.6 %.
"""

_base_ = 'r50.py'

_view = dict(ops=dict(rotation=dict(type='RandomRotation', angles=(0, 90, 180, 270))))
train_dataloader = dict(dataset=dict(views=dict(first=_view, second=_view)))
del _view
