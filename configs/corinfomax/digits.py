"""CorInfoMax (Ozsoy et al., NeurIPS 2022), q = 64, digits. A recipe of ours, a minute on two cores.

mmkernel train configs/corinfomax/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(neck=dict(dims=(256, 256, 64)), head=dict(type='LogDetHead', alignment_weight=500.0, normalize=True))
