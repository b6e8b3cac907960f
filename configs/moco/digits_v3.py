"""MoCo v3 (Chen, Xie & He, ICCV 2021), in-batch keys, scikit-learn's digits. A recipe of ours, under a minute on two cores.

mmkernel train configs/moco/digits_v3.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 256), last_norm=dict(type='BN', affine=False), bias=False),
    predictor=dict(type='MLPNeck', dims=(256, 256), bias=False),
    target=dict(type='MomentumTarget'),
    head=dict(type='InfoNCEHead', temperature=0.2, weight=0.8, negatives='targets'),  # weight: 4 T
)
train_cfg = dict(max_epochs=16)  # two encoders: as many seconds as 20 epochs of one
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.9, end_momentum=1.0, schedule='cosine'))
