"""MMCR (Yerxa et al., NeurIPS 2023), q = 64, digits. A recipe of ours, a minute on two cores.

mmkernel train configs/mmcr/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(neck=dict(dims=(256, 256, 64)), head=dict(type='SpectrumHead', objective='centroids', spectrum_weight=0.2))
