"""Spectral contrastive loss (HaoChen et al., NeurIPS 2021), q = 64, digits. A recipe of ours, a minute on two cores.

python tools/train.py configs/spectral/digits.py
No published result. Run here: 98.6 % kNN (k = 20, all labels; raw pixels 96.7, untrained 91.7), seed 0, 2-core CPU.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 256, 64), last_norm='BN'), head=dict(type='SpectralContrastiveHead', mu=10.0, weight=10.0)
)
