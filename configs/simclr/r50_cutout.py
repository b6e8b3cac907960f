"""SimCLR with a square cut out of half of the views besides, ResNet-50, ImageNet-1k: an ablation of Chen et al. (ICML 2020).

bash tools/dist_train.sh configs/simclr/r50_cutout.py 8
No published result for linear probes. Not measured by us.
"""

_base_ = 'r50.py'

_view = dict(ops=dict(cutout=dict(type='Cutout', size=0.5, probability=0.5)))
train_dataloader = dict(dataset=dict(views=dict(first=_view, second=_view)))
del _view
