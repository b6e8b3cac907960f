"""Donsker-Varadhan bound on the mutual information of two views, digits (Poole et al., ICML 2019). A recipe of ours.

mmkernel train configs/mi/digits_dv.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = 'digits_infonce.py'

model = dict(head=dict(bound='dv'))
