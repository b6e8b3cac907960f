"""CorInfoMax, ResNet-18 with a small stem, q = 64, CIFAR-10 (Ozsoy et al., NeurIPS 2022).

mmkernel train configs/corinfomax/cifar10.py
Published: 93.2 % linear top-1 after 1000 epochs. Not measured by us.
Their views of CIFAR-10 are not at hand: these are solo-learn's.
"""

_base_ = ['../_base_/cifar10_two_views.py', '../_base_/cifar_sgd_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True, zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 64)),
    head=dict(type='LogDetHead', alignment_weight=250.0, eps=1e-8, normalize=True),
)
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(precision='float32', optimizer=dict(lr=0.5))
lr_scaling = None
param_scheduler = dict(start_factor=0.006, end_factor=2e-6)  # from 3e-3, to 1e-6
