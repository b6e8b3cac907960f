"""MoCo v2 in both directions, ResNet-18 with a small stem, CIFAR-10 (Chen et al., 2020), solo-learn's v2+ recipe.

mmkernel train configs/moco/cifar10_v2.py
Published: 92.9 % top-1 of a classifier trained online, 1000 epochs (da Costa et al., JMLR 2022). Not measured by us.
"""

_base_ = ['../_base_/cifar10_weak_views.py', '../_base_/cifar_sgd_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(2048, 256), norm=None, last_bias=True),
    target=dict(type='MomentumTarget'),
    head=dict(
        type='InfoNCEHead', temperature=0.2, negatives='queue', queue=dict(type='FeatureQueue', length=32768, views=2)
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.3))
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.99, end_momentum=0.999, schedule='cosine'))
