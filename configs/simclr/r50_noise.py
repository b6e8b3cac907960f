"""SimCLR with Gaussian noise in half of the views besides, ResNet-50, ImageNet-1k: an ablation of Chen et al. (ICML 2020).

bash tools/dist_train.sh configs/simclr/r50_noise.py 8
No published result for linear probes. Not measured by us.
In the paper noise is detected from h with 99.5 %, from z with 59.6 %. Their strength of the noise is not given: ours.
"""

_base_ = 'r50.py'

_view = dict(ops=dict(noise=dict(type='GaussianNoise', sigma=(12.0, 64.0), probability=0.5)))
train_dataloader = dict(dataset=dict(views=dict(first=_view, second=_view)))
del _view
