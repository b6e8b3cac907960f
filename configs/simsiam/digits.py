"""SimSiam (Chen & He, CVPR 2021), q = 256, scikit-learn's digits. A recipe of ours, under a minute on two cores.

mmkernel train configs/simsiam/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 256), last_norm=dict(type='BN', affine=False), bias=False),
    predictor=dict(type='MLPNeck', dims=(64, 256), bias=False, last_bias=True),
    target=dict(type='StopGradientTarget'),
    head=dict(type='CosinePredictionHead', weight=0.5),  # the published loss is this minus 1
)
optim_wrapper = dict(
    optimizer=dict(lr=2.0),  # x 128 / 256 = 1
    paramwise_cfg=dict(custom_keys=dict(predictor=dict(fixed_lr=True))),
)
param_scheduler = dict(warmup_epochs=1)
