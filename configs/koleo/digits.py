"""KoLeo (Sablayrolles et al., ICLR 2019) beside an alignment of views, digits. A recipe of ours, a minute on two cores.

mmkernel train configs/koleo/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(head=dict(type='EntropyHead', alignment_weight=20.0, density_weight=4.0))
