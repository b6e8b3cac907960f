"""VICReg, ResNet-18 with a small stem, q = 2048, CIFAR-10 (Bardes et al., ICLR 2022), solo-learn's recipe.

mmkernel train configs/vicreg/cifar10.py
Published: 92.1 % top-1 of a classifier trained online, 1000 epochs (da Costa et al., JMLR 2022). Not measured by us.
"""

_base_ = ['../_base_/cifar10_two_views.py', '../_base_/cifar_lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 2048), last_bias=True),
    head=dict(type='VarianceCovarianceHead', variance_weight=50.0),  # 25 on the sum over views, as in that code
)
_view = dict(crop=dict(scale=(0.2, 1.0)), ops=dict(solarize=dict(probability=0.1)))
train_dataloader = dict(dataset=dict(views=dict(first=_view, second=_view)))
del _view
optim_wrapper = dict(optimizer=dict(lr=0.3, weight_decay=1e-4))
