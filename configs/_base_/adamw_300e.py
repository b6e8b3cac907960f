"""AdamW, 40 epochs of warm-up from 0, cosine to 0, 300 epochs, decay on every parameter. The method's config gives the rate:

optim_wrapper = dict(optimizer=dict(lr=1.5e-4))
"""

train_cfg = dict(by_epoch=True, max_epochs=300)
optim_wrapper = dict(
    type='PretrainOptimWrapper',
    precision='float32',
    accumulative_counts=1,
    optimizer=dict(type='AdamW', weight_decay=0.1),
)
lr_scaling = 'linear'  # lr * effective batch / 256
param_scheduler = dict(type='WarmupCosineLR', warmup_epochs=40, end_factor=0.0)
