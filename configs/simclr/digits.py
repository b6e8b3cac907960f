"""SimCLR (Chen et al., ICML 2020), q = 256, scikit-learn's digits. A recipe of ours that takes under a minute on two cores.

mmkernel train configs/simclr/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(head=dict(type='InfoNCEHead', temperature=0.2), batching='all')
