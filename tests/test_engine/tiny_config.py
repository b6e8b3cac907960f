"""The smallest run: 64 images, 8 iterations per epoch."""

_base_ = ['../../configs/_base_/runtime.py', '../../configs/_base_/lars_100e.py']

custom_imports = dict(imports=['tiny_training'])
data_preprocessor = dict(type='BaseDataPreprocessor')
model = dict(type='TinyModel')
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='TinyViews'),
)
train_cfg = dict(max_epochs=4)
optim_wrapper = dict(optimizer=dict(lr=0.3))
param_scheduler = dict(warmup_epochs=1)
default_hooks = dict(checkpoint=dict(interval=1, max_keep=3))
num_samples = 64
