"""solo-learn's optimizer for CIFAR: LARS with clipped ratio, 10 epochs of warm-up, cosine to 0, 1000 epochs of batch 256.

da Costa et al., JMLR 2022. The method's config gives the rate and the decay: optim_wrapper.optimizer.lr, weight_decay.
"""

train_cfg = dict(by_epoch=True, max_epochs=1000)
optim_wrapper = dict(
    type='PretrainOptimWrapper',
    precision='float16',
    accumulative_counts=1,
    optimizer=dict(type='LARS', momentum=0.9, trust_coefficient=0.02, norms='separate', clip=True),
)
lr_scaling = 'linear'
param_scheduler = dict(type='WarmupCosineLR', warmup_epochs=10, start_factor=1e-4, end_factor=0.0)
