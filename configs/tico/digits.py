"""TiCo (Zhu et al., arXiv 2206.10698, 2022), q = 256, digits. A recipe of ours, a minute on two cores.

mmkernel train configs/tico/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 256)),
    target=dict(type='MomentumTarget'),
    head=dict(type='QuadraticMemoryHead', momentum=0.9, alignment_weight=0.5, contrast_weight=8.0),
)
train_cfg = dict(max_epochs=16)
optim_wrapper = dict(optimizer=dict(lr=1.0))  # x 128 / 256 = 0.5
param_scheduler = dict(warmup_epochs=2)
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.9, end_momentum=1.0, schedule='cosine'))
