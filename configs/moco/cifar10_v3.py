"""MoCo v3, ResNet-18 with a small stem, CIFAR-10 (Chen, Xie & He, ICCV 2021), solo-learn's recipe.

mmkernel train configs/moco/cifar10_v3.py
Published: 93.1 % top-1 of a classifier trained online, 1000 epochs (da Costa et al., JMLR 2022). Not measured by us.
"""

_base_ = ['../_base_/cifar10_two_views.py', '../_base_/cifar_lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(4096, 256), bias=False, last_norm=dict(type='BN', affine=False)),
    predictor=dict(type='MLPNeck', dims=(4096, 256), bias=False, last_norm=dict(type='BN', affine=False)),
    target=dict(type='MomentumTarget'),
    head=dict(type='InfoNCEHead', temperature=0.2, weight=0.8, negatives='targets'),  # weight: 4 T
)
optim_wrapper = dict(optimizer=dict(lr=0.3, weight_decay=1e-6))
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.99, end_momentum=1.0, schedule='cosine'))
