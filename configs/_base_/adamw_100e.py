"""AdamW in bfloat16, one epoch of warm-up from 0.01, cosine to 0.001 of the peak, 100 epochs, decay on every parameter.

The method's config gives the rate, the same for every batch: optim_wrapper = dict(optimizer=dict(lr=5e-4))
"""

_base_ = 'adamw_300e.py'

train_cfg = dict(max_epochs=100)
optim_wrapper = dict(precision='bfloat16', optimizer=dict(weight_decay=0.05))
lr_scaling = None
param_scheduler = dict(warmup_epochs=1, start_factor=0.01, end_factor=0.001)
