"""VICReg, q = 256, scikit-learn's digits (Bardes et al., ICLR 2022). A recipe of ours, under a minute on two cores.

mmkernel train configs/vicreg/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(head=dict(type='VarianceCovarianceHead'))
