"""SimCLR with Sobel edges in half of the views besides, ResNet-50, ImageNet-1k: an ablation of Chen et al. (ICML 2020).

bash tools/dist_train.sh configs/simclr/r50_sobel.py 8
No published result for linear probes. Not measured by us.
In the paper edges are detected from h with 96.6 %, from z with 56.3 %.
"""

_base_ = 'r50.py'

_view = dict(ops=dict(sobel=dict(type='Sobel', probability=0.5)))
train_dataloader = dict(dataset=dict(views=dict(first=_view, second=_view)))
del _view
