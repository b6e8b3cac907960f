"""A small ResNet and projector on the digits: 0.34 M parameters in all, 20 epochs of SGD. The method's config adds the head."""

_base_ = ['digits_two_views.py', 'runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(
        type='TIMMBackbone',
        model_name='resnet18',
        small_images=True,
        in_channels=1,
        layers=(1, 1, 1, 1),
        channels=(12, 24, 48, 96),
    ),
    neck=dict(type='MLPNeck', dims=(256, 256, 256)),
)
train_cfg = dict(by_epoch=True, max_epochs=20)
optim_wrapper = dict(
    type='PretrainOptimWrapper',
    precision='float32',
    accumulative_counts=1,
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),  # x 128 / 256 = 0.05
)
lr_scaling = 'linear'
param_scheduler = dict(type='WarmupCosineLR', warmup_epochs=5, end_factor=0.0)
train_dataloader = dict(batch_size=128, num_workers=0)
default_hooks = dict(
    logger=dict(interval=5),
    monitor=dict(interval=5),
    knn=dict(type='KNNMonitorHook', interval=10),
    checkpoint=dict(interval=10),
)
