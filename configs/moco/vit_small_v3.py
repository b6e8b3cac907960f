"""MoCo v3, ViT-S/16 with 12 heads, in-batch keys, ImageNet-1k (Chen, Xie & He, ICCV 2021).

bash tools/dist_train.sh configs/moco/vit_small_v3.py 32
Published: 73.2 % linear top-1 after 300 epochs (batch 4096). Not measured by us.
Flips come first, in their code last: colours, blur and solarization do not tell left from right.
"""

_base_ = ['../_base_/imagenet_two_views.py', '../_base_/adamw_300e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(
        type='TIMMBackbone', model_name='vit_small_patch16_224', num_heads=12,
        weight_init='moco', fixed_positions=True, fixed_patches=True,
    ),
    neck=dict(type='MLPNeck', dims=(4096, 4096, 256), bias=False, last_norm=dict(type='BN', affine=False)),
    predictor=dict(type='MLPNeck', dims=(4096, 256), bias=False, last_norm=dict(type='BN', affine=False)),
    target=dict(type='MomentumTarget'),
    head=dict(type='InfoNCEHead', temperature=0.2, weight=0.8, negatives='targets'),  # two directions, each times 2 T
)  # fmt: skip
_crop = dict(crop=dict(interpolation='bilinear'))
train_dataloader = dict(batch_size=128, dataset=dict(views=dict(first=_crop, second=_crop)))
del _crop
optim_wrapper = dict(precision='float16', optimizer=dict(lr=1.5e-4))  # x 4096 / 256 = 2.4e-3
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.99, end_momentum=1.0, schedule='cosine'))
