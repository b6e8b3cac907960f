"""Barlow Twins, ResNet-18 with a small stem, q = 2048, CIFAR-10 (Zbontar et al., ICML 2021), solo-learn's recipe.

mmkernel train configs/barlow_twins/cifar10.py
Published: 92.1 % top-1 of a classifier trained online, 1000 epochs (da Costa et al., JMLR 2022). Not measured by us.
"""

_base_ = ['../_base_/cifar10_two_views.py', '../_base_/cifar_lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 2048), last_bias=True),
    head=dict(type='CrossCorrelationHead', off_diagonal_weight=0.0051, scale=0.1),
)
optim_wrapper = dict(optimizer=dict(lr=0.3, weight_decay=1e-4))
