"""SwAV (Caron et al., NeurIPS 2020), 48 prototypes, two views, scikit-learn's digits. A recipe of ours, under a minute.

mmkernel train configs/swav/digits.py
No published result. Measured by us: see model_zoo.md.
In a trial at epsilon = 0.05 (64 prototypes) the loss stayed at log 64: so short a run needs sharper codes.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 128), last_bias=True),
    head=dict(type='SinkhornCodesHead', num_prototypes=48, temperature=0.1, epsilon=0.02),
    batching='size',
    neck_batching='all',
)
optim_wrapper = dict(optimizer=dict(lr=0.3))  # x 128 / 256 = 0.15
param_scheduler = dict(warmup_epochs=1)
default_hooks = dict(freeze=dict(type='FreezeHook', layers={'head.prototypes': dict(epochs=1)}))
