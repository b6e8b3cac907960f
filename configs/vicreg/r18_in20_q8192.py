"""VICReg, ResNet-18, q = 8192, 20 % of ImageNet (baseline of Zheng et al., ICLR 2023).

bash tools/dist_train.sh configs/vicreg/r18_in20_q8192.py 4
Published: 46.0 % linear top-1 after 100 epochs (their run, 4 x 512 images). Not measured by us.
The incomplete last batch of an epoch is left out (126 steps); theirs is kept (127).
"""

_base_ = ['../_base_/imagenet20_two_views.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 8192)),
    head=dict(type='VarianceCovarianceHead', invariance_weight=10.0, variance_weight=10.0, covariance_weight=1.0),
)
optim_wrapper = dict(precision='float16', optimizer=dict(lr=0.7))  # x 2048 / 256 = 5.6
