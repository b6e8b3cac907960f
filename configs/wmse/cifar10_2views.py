"""W-MSE 2, ResNet-18 with a small stem, q = 64, CIFAR-10 (Ermolov et al., ICML 2021).

mmkernel train configs/wmse/cifar10_2views.py
Published: 91.6 % linear top-1 after 1000 epochs. Not measured by us.
The authors jitter colours before the crop; here operations follow it.
"""

_base_ = ['../_base_/cifar10_two_views.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(1024, 64), last_bias=True),
    neck_batching='all',
    head=dict(type='WhiteningHead', method='cholesky', sub_batch_size=128, distance='cosine'),
)
_ops = dict(jitter=dict(saturation=0.4), gray=dict(probability=0.1), solarize=dict(probability=0.0))
_view = dict(crop=dict(scale=(0.2, 1.0)), ops=_ops)
train_dataloader = dict(batch_size=512, dataset=dict(views=dict(first=_view, second=_view)))
del _ops, _view
data_preprocessor = dict(std=[0.2023, 0.1994, 0.2010])
train_cfg = dict(by_epoch=True, max_epochs=1000)
optim_wrapper = dict(type='PretrainOptimWrapper', optimizer=dict(type='Adam', lr=3e-3, weight_decay=1e-6))
lr_scaling = None
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[950, 975], gamma=0.2),
]
