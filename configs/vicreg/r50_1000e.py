"""VICReg, ResNet-50, q = 8192, ImageNet-1k (Bardes et al., ICLR 2022).

bash tools/dist_train.sh configs/vicreg/r50_1000e.py 8
Published: 73.2 % linear top-1 after 1000 epochs (batch 2048). Not measured by us.
The incomplete last batch of an epoch is left out (625 steps); theirs is kept (626).
"""

_base_ = ['../_base_/imagenet_two_views.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 8192)),
    head=dict(type='VarianceCovarianceHead', invariance_weight=25.0, variance_weight=25.0, covariance_weight=1.0),
)
train_cfg = dict(max_epochs=1000)
optim_wrapper = dict(precision='float16', optimizer=dict(lr=0.2))  # x 2048 / 256 = 1.6
