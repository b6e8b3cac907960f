"""BYOL (Grill et al., NeurIPS 2020), q = 256, scikit-learn's digits. A recipe of ours, under a minute on two cores.

mmkernel train configs/byol/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 256)),
    predictor=dict(type='MLPNeck', dims=(256, 256)),
    target=dict(type='MomentumTarget'),
    head=dict(type='CosinePredictionHead', weight=2.0),
)
train_cfg = dict(max_epochs=16)  # two encoders: as many seconds as 20 epochs of one
optim_wrapper = dict(
    optimizer=dict(lr=1.0),  # x 128 / 256 = 0.5
    paramwise_cfg=dict(custom_keys=dict(predictor=dict(fixed_lr=True))),
)
param_scheduler = dict(warmup_epochs=2)
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.9, end_momentum=1.0, schedule='cosine'))
