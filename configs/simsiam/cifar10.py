"""SimSiam, ResNet-18 with a small stem, q = 2048, CIFAR-10 (Chen & He, CVPR 2021), solo-learn's recipe.

mmkernel train configs/simsiam/cifar10.py
Published: 90.5 % top-1 of a classifier trained online, 1000 epochs (da Costa et al., JMLR 2022). Not measured by us.
"""

_base_ = ['../_base_/cifar10_weak_views.py', '../_base_/cifar_sgd_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 2048), bias=False, last_norm=dict(type='BN', affine=False)),
    predictor=dict(type='MLPNeck', dims=(512, 2048), bias=False, last_bias=True),
    target=dict(type='StopGradientTarget'),
    head=dict(type='CosinePredictionHead', weight=0.5),
)
optim_wrapper = dict(
    optimizer=dict(lr=0.5, weight_decay=1e-5), paramwise_cfg=dict(custom_keys=dict(predictor=dict(fixed_lr=True)))
)
