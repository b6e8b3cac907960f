"""Plain batch norm at the end, scikit-learn's digits (Hua et al., ICCV 2021). A recipe of ours, under a minute on two cores.

python tools/train.py configs/dbn/digits_bn.py
No published result. Not run here.
It prevents complete collapse only: dimensions become correlated.
"""

_base_ = 'digits_shuffled_dbn.py'

model = dict(neck=dict(last_norm=dict(_delete_=True, type='BN', affine=False)))
