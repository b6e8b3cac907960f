"""Shuffled DBN, ResNet-18 with a small stem, q = 512, CIFAR-10 (Hua et al., ICCV 2021).

mmkernel train configs/dbn/cifar10_shuffled_dbn.py
No published result at hand for this recipe. Not measured by us.
"""

_base_ = ['../_base_/cifar10_two_views.py', '../_base_/lars_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(1024, 512), last_norm=dict(type='ShuffledDBN', groups=16)),
    head=dict(
        type='VarianceCovarianceHead',
        invariance_weight=1.0,
        variance_weight=0.0,
        covariance_weight=0.0,
        reduction='sample',
    ),
)
_ops = dict(jitter=dict(saturation=0.4), solarize=dict(probability=0.0))
_view = dict(crop=dict(scale=(0.2, 1.0), interpolation='bilinear'), ops=_ops)
train_dataloader = dict(batch_size=64, dataset=dict(views=dict(first=_view, second=_view)))
del _ops, _view
data_preprocessor = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])  # ImageNet's, as published
optim_wrapper = dict(
    precision='bfloat16', optimizer=dict(_delete_=True, type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-3)
)
param_scheduler = dict(warmup_epochs=5, end_factor=0.0)
