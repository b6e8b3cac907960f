"""SimCLR, ResNet-18, q = 8192, 20 % of ImageNet: a baseline of Zheng et al., ICLR 2023 (Chen et al., ICML 2020).

bash tools/dist_train.sh configs/simclr/r18_in20_q8192.py 4
Published: 46.1 % linear top-1 after 100 epochs. Not measured by us.
The incomplete last batch of an epoch is left out (126 steps); theirs is kept (127).
"""

_base_ = ['../_base_/imagenet20_two_views.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 8192)),
    head=dict(type='InfoNCEHead', temperature=0.15, negatives='views'),
)
optim_wrapper = dict(precision='float16', optimizer=dict(lr=0.8))  # x 2048 / 256 = 6.4
