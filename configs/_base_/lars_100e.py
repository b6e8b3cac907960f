"""LARS, 10 epochs of warm-up from 0, cosine to 0.001 of the peak, 100 epochs. The method's config gives the rate:

optim_wrapper = dict(optimizer=dict(lr=0.4))
"""

_base_ = 'lars_200e.py'

train_cfg = dict(max_epochs=100)
