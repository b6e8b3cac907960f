"""solo-learn's SGD for CIFAR: 10 epochs of warm-up, cosine to 0, 1000 epochs of batch 256 (da Costa et al., JMLR 2022).

The method's config gives the rate: optim_wrapper = dict(optimizer=dict(lr=0.3))
"""

_base_ = 'sgd_200e.py'

train_cfg = dict(max_epochs=1000)
optim_wrapper = dict(precision='float16')
param_scheduler = dict(warmup_epochs=10, start_factor=1e-4)
