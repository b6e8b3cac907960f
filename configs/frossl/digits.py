"""FroSSL (Skean et al., ECCV 2024), q = 64, scikit-learn's digits. A recipe of ours, a minute on two cores.

mmkernel train configs/frossl/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 256, 64)), head=dict(type='SpectrumHead', objective='frobenius', alignment_weight=4.0)
)
optim_wrapper = dict(optimizer=dict(lr=0.3))  # x 128 / 256 = 0.15
