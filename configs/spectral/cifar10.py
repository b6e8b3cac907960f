"""Spectral contrastive loss, ResNet-18 with a small stem, q = 1000, mu = 1, CIFAR-10 (HaoChen et al., NeurIPS 2021).

mmkernel train configs/spectral/cifar10.py
No published result at hand for this recipe of their repository, 800 epochs. Not measured by us.
"""

_base_ = ['../_base_/cifar10_weak_views.py', '../_base_/cifar_sgd_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(2048, 1000), last_bias=True, last_norm='BN'),
    head=dict(type='SpectralContrastiveHead', mu=1.0),
)
_view = dict(crop=dict(scale=(0.2, 1.0), interpolation='bilinear'), ops=dict(blur=None))
train_dataloader = dict(batch_size=512, dataset=dict(views=dict(first=_view, second=_view)))
del _view
data_preprocessor = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])  # ImageNet's, as there
train_cfg = dict(max_epochs=800)
optim_wrapper = dict(precision='bfloat16', optimizer=dict(lr=0.03, weight_decay=5e-4))  # x 512 / 256 = 0.06
param_scheduler = dict(start_factor=0.0)
