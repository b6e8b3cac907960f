"""BYOL, ResNet-18 with a small stem, q = 256, CIFAR-10 (Grill et al., NeurIPS 2020), solo-learn's recipe.

mmkernel train configs/byol/cifar10.py
Published: 92.6 % top-1 of a classifier trained online, 1000 epochs (da Costa et al., JMLR 2022). Not measured by us.
"""

_base_ = ['../_base_/cifar10_two_views.py', '../_base_/cifar_lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(4096, 256), last_bias=True),
    predictor=dict(type='MLPNeck', dims=(4096, 256), last_bias=True),
    target=dict(type='MomentumTarget'),
    head=dict(type='CosinePredictionHead', weight=2.0),
)
optim_wrapper = dict(optimizer=dict(lr=1.0, weight_decay=1e-5))
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.99, end_momentum=1.0, schedule='cosine'))
