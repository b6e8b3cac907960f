"""SimCLR, ResNet-18 with a small stem, q = 256, CIFAR-10 (Chen et al., ICML 2020), solo-learn's recipe.

mmkernel train configs/simclr/cifar10.py
Published: 90.7 % top-1 of a classifier trained online, 1000 epochs (da Costa et al., JMLR 2022). Not measured by us.
"""

_base_ = ['../_base_/cifar10_strong_views.py', '../_base_/cifar_lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(2048, 256), norm=None, last_bias=True),
    head=dict(type='InfoNCEHead', temperature=0.2, negatives='views'),
)
optim_wrapper = dict(optimizer=dict(lr=0.4, weight_decay=1e-4))
