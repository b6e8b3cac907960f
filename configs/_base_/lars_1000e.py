"""LARS, 10 epochs of warm-up from 0, cosine to 0, 1000 epochs. The method's config gives the rate:

optim_wrapper = dict(optimizer=dict(lr=0.3))
"""

_base_ = 'lars_200e.py'

train_cfg = dict(max_epochs=1000)
param_scheduler = dict(end_factor=0.0)
