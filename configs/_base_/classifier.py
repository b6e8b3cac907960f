"""A linear classifier on a frozen encoder: SGD, cosine stepped per epoch, rates as written. The protocol gives the figures.

The backbone below stands for the one that is judged: mmkernel classify puts that of the pretraining config here.
"""

_base_ = 'runtime.py'

model = dict(
    type='Classifier',
    backbone=dict(type='TIMMBackbone', model_name='resnet50'),
    num_classes=1000,
    frozen=True,
)
train_cfg = dict(by_epoch=True, max_epochs=100)
optim_wrapper = dict(
    type='PretrainOptimWrapper',
    precision='float32',
    accumulative_counts=1,
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0),
)
lr_scaling = None
param_scheduler = dict(type='CosineAnnealingLR')
default_hooks = dict(
    monitor=None,  # there is no embedding to watch
    doctor=None,
    report=None,
    accuracy=dict(type='AccuracyHook', interval=1),
    checkpoint=dict(interval=10, max_keep=1),
)
