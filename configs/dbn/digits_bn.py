"""Plain batch norm at the end, scikit-learn's digits (Hua et al., ICCV 2021). A recipe of ours, under a minute on two cores.

mmkernel train configs/dbn/digits_bn.py
No published result. Measured by us: see model_zoo.md.
It prevents complete collapse only. All dimensions end fully correlated (every |C_ij| near 1), as the paper
reports, and kNN with all labels stays below the untrained encoder's.
"""

_base_ = 'digits_shuffled_dbn.py'

model = dict(neck=dict(last_norm=dict(_delete_=True, type='BN', affine=False)))
