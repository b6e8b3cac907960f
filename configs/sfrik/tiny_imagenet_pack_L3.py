"""SFRIK, L = 3, q = 256, a small ResNet on Tiny-ImageNet's pack at 32 px, 10 short epochs: minutes on two cores. Ours.

mmkernel train configs/sfrik/tiny_imagenet_pack_L3.py
No published result. Measured by us: see tools/benchmarks/README.md, whose every benchmark can be tried on it.
"""

_base_ = ['../_base_/cifar10_pack_two_views.py', '../_base_/runtime.py']

pack = 'data/tiny_imagenet100_jpeg.npz'
train_dataloader = dict(
    batch_size=128, num_workers=2, pin_memory=False, num_batch_per_epoch=20, dataset=dict(source=dict(path=pack))
)
evaluation = dict(
    train=dict(_delete_=True, type='Subset', source=dict(type='NpzPack', path=pack, split='train'), per_class=100),
    test=dict(_delete_=True, type='Subset', source=dict(type='NpzPack', path=pack, split='test'), per_class=20),
    transform=dict(resize=32, crop=32),
    batch_size=128,
)
model = dict(
    type='JointEmbedding',
    backbone=dict(
        type='TIMMBackbone', model_name='resnet18', small_images=True, layers=(1, 1, 1, 1), channels=(12, 24, 48, 96)
    ),
    neck=dict(type='MLPNeck', dims=(256, 256, 256)),
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0)),
        alignment_weight=20.0,
        reduction='sample',
    ),
)
train_cfg = dict(by_epoch=True, max_epochs=10)
optim_wrapper = dict(type='PretrainOptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
lr_scaling = 'linear'
param_scheduler = dict(type='WarmupCosineLR', warmup_epochs=2, end_factor=0.0)
default_hooks = dict(logger=dict(interval=10), monitor=dict(interval=10))
