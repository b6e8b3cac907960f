"""FroSSL, ResNet-18 with a small stem, q = 1024, CIFAR-10 (Skean et al., ECCV 2024).

mmkernel train configs/frossl/cifar10.py
No published result at hand for this recipe of their repository, 1000 epochs. Not measured by us.
Their two-view code centres each dimension first; lightly's, and this one, does not.
"""

_base_ = ['../_base_/cifar10_weak_views.py', '../_base_/cifar_lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 1024), last_bias=True),
    head=dict(type='SpectrumHead', objective='frobenius'),
)
_view = dict(ops=dict(blur=None))
train_dataloader = dict(dataset=dict(views=dict(first=_view, second=_view)))
del _view
optim_wrapper = dict(precision='bfloat16', optimizer=dict(lr=0.3, weight_decay=1e-4))
