"""MMCR, ResNet-50, q = 512, two views and a momentum encoder, ImageNet-1k (Yerxa et al., NeurIPS 2023).

bash tools/dist_train.sh configs/mmcr/r50.py 16
No published result at hand for this recipe of their repository, 100 epochs of batch 2048. Not measured by us.
Theirs is in float16. Their rate for 8 views is 0.8: train_dataloader.dataset.views.first.count=4, second.count=4.
"""

_base_ = ['../_base_/imagenet_two_views.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 512), bias=False),
    target=dict(type='MomentumTarget'),
    head=dict(type='SpectrumHead', objective='centroids', with_targets=True),
    batching='all',
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(precision='bfloat16', optimizer=dict(lr=0.6, weight_decay=1e-6))  # x 2048 / 256 = 4.8
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.99, schedule='constant'))
