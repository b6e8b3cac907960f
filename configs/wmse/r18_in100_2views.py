"""W-MSE 2, ResNet-18, q = 128, ImageNet-100 (Ermolov et al., ICML 2021).

mmkernel train configs/wmse/r18_in100_2views.py
No published result at hand for this recipe. Not measured by us.
The authors jitter colours and drop them before the crop; here operations follow it, on the view alone.
Whitening is per process: with several, batch_size is that of each and holds whole sub-batches.
"""

_base_ = ['../_base_/imagenet_strong_views.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18'),
    neck=dict(type='MLPNeck', dims=(1024, 128), last_bias=True),
    neck_batching='all',
    head=dict(type='WhiteningHead', method='cholesky', sub_batch_size=256, distance='cosine'),
)
train_dataloader = dict(batch_size=512, dataset=dict(source=dict(type='ImageNet100')))
evaluation = dict(train=dict(type='ImageNet100'), test=dict(type='ImageNet100'))
train_cfg = dict(by_epoch=True, max_epochs=240)
optim_wrapper = dict(
    type='PretrainOptimWrapper', precision='bfloat16', optimizer=dict(type='Adam', lr=2e-3, weight_decay=1e-6)
)
lr_scaling = None
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[190, 215], gamma=0.2),
]
