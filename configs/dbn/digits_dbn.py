"""Decorrelated batch norm, scikit-learn's digits (Hua et al., ICCV 2021). A recipe of ours, under a minute on two cores.

mmkernel train configs/dbn/digits_dbn.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = 'digits_shuffled_dbn.py'

model = dict(neck=dict(last_norm=dict(type='DBN')))
