"""Wasserstein distance to uniform beside BYOL, ResNet-18 with a small stem, q = 256, CIFAR-10 (Fang et al., ICLR 2024).

mmkernel train configs/w2/cifar10_byol.py
Published: 90.3 % linear top-1 after 500 epochs (BYOL alone 89.5). Not measured by us.
Their views are not at hand: these are solo-learn's.
"""

_base_ = ['../_base_/cifar10_two_views.py', '../_base_/lars_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True, zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 256), bias=False, last_bias=True),
    predictor=dict(type='MLPNeck', dims=(2048, 256), bias=False, last_bias=True),
    target=dict(type='MomentumTarget'),
    head=dict(type='SumHead', heads=dict(
        prediction=dict(type='CosinePredictionHead', weight=2.0),
        spread=dict(type='SpectrumHead', objective='wasserstein', alignment_weight=0.0, spectrum_weight=0.2),
    )),
)  # fmt: skip
train_cfg = dict(max_epochs=500)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(
    optimizer=dict(lr=0.2, weight_decay=1e-4),
    constructor='VectorRateConstructor',
    paramwise_cfg=dict(vector_lr_mult=0.025),  # biases 0.005
)
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.99, schedule='constant'))
