"""Spectral contrastive loss (HaoChen et al., NeurIPS 2021), q = 64, digits. A recipe of ours, a minute on two cores.

mmkernel train configs/spectral/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 256, 64), last_norm='BN'), head=dict(type='SpectralContrastiveHead', mu=10.0, weight=10.0)
)
