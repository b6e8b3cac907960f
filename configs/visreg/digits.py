"""VISReg (Wu, Balestriero & Levine, arXiv 2606.02572, 2026), q = 64, digits. A recipe of ours, a minute on two cores.

mmkernel train configs/visreg/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 256, 64)),
    head=dict(
        type='SlicedHead', statistic='wasserstein', standardize=True, num_slices=256, alignment_weight=0.4,
        normality_weight=0.6, scale_weight=0.6, center_weight=0.6,
    ),
)  # fmt: skip
optim_wrapper = dict(optimizer=dict(lr=1.0))  # x 128 / 256 = 0.5
