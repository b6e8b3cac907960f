"""LeJEPA (Balestriero & LeCun, arXiv 2511.08544, 2025), q = 64, digits. A recipe of ours, a minute on two cores.

mmkernel train configs/lejepa/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 256, 64)),
    head=dict(type='SlicedHead', num_slices=256, alignment_weight=0.98, normality_weight=0.02),
)
optim_wrapper = dict(optimizer=dict(lr=1.0))  # x 128 / 256 = 0.5
