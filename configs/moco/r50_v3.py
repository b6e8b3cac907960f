"""MoCo v3, ResNet-50, in-batch keys, ImageNet-1k (Chen, Xie & He, ICCV 2021).

bash tools/dist_train.sh configs/moco/r50_v3.py 8
Published: 74.6 % linear top-1 after 1000 epochs (batch 4096). Not measured by us.
Flips come first, in their code last: colours, blur and solarization do not tell left from right.
"""

_base_ = ['../_base_/imagenet_two_views.py', '../_base_/lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(4096, 256), bias=False, last_norm=dict(type='BN', affine=False)),
    predictor=dict(type='MLPNeck', dims=(4096, 256), bias=False),
    target=dict(type='MomentumTarget'),
    head=dict(type='InfoNCEHead', temperature=1.0, weight=4.0, negatives='targets'),  # two directions, each times 2 T
)
_crop = dict(crop=dict(scale=(0.2, 1.0), interpolation='bilinear'))
train_dataloader = dict(batch_size=512, dataset=dict(views=dict(first=_crop, second=_crop)))
del _crop
optim_wrapper = dict(precision='float16', optimizer=dict(lr=0.3, weight_decay=1.5e-6))  # x 4096 / 256 = 4.8
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.996, end_momentum=1.0, schedule='cosine'))
