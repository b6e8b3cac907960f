"""SGD with momentum, no warm-up, cosine to 0, 200 epochs. The method's config gives the rate:

optim_wrapper = dict(optimizer=dict(lr=0.03))
"""

train_cfg = dict(by_epoch=True, max_epochs=200)
optim_wrapper = dict(
    type='PretrainOptimWrapper',
    precision='float32',
    accumulative_counts=1,
    optimizer=dict(type='SGD', momentum=0.9, weight_decay=1e-4),
)
lr_scaling = 'linear'  # lr * effective batch / 256
param_scheduler = dict(type='WarmupCosineLR', warmup_epochs=0, end_factor=0.0)
