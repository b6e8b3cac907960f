"""Wasserstein distance to uniform beside an alignment of views (Fang et al., ICLR 2024), digits. A recipe of ours.

mmkernel train configs/w2/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 256, 64)),
    head=dict(type='SpectrumHead', objective='wasserstein', alignment_weight=20.0, spectrum_weight=20.0),
)
