"""LARS, 10 epochs of warm-up from 0, cosine to 0.001 of the peak, 200 epochs. The method's config gives the rate:

optim_wrapper = dict(optimizer=dict(lr=0.4))
"""

train_cfg = dict(by_epoch=True, max_epochs=200)
optim_wrapper = dict(
    type='PretrainOptimWrapper',
    precision='float32',
    accumulative_counts=1,
    optimizer=dict(type='LARS', momentum=0.9, weight_decay=1e-6, trust_coefficient=1e-3),
)
lr_scaling = 'linear'  # lr * effective batch / 256
param_scheduler = dict(type='WarmupCosineLR', warmup_epochs=10, end_factor=0.001)
