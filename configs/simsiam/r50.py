"""SimSiam, ResNet-50, q = 2048, ImageNet-1k (Chen & He, CVPR 2021).

bash tools/dist_train.sh configs/simsiam/r50.py 8
Published: 68.1 % linear top-1 after 100 epochs (batch 512). Not measured by us.
"""

_base_ = ['../_base_/imagenet_moderate_views.py', '../_base_/sgd_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 2048), bias=False, last_norm=dict(type='BN', affine=False)),
    predictor=dict(type='MLPNeck', dims=(512, 2048), bias=False, last_bias=True),
    target=dict(type='StopGradientTarget'),
    head=dict(type='CosinePredictionHead', weight=0.5),  # the published loss is this minus 1
)
train_cfg = dict(max_epochs=100)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(lr=0.05),  # x 512 / 256 = 0.1
    paramwise_cfg=dict(custom_keys=dict(predictor=dict(fixed_lr=True))),
)
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR')  # per epoch
