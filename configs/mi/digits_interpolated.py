"""Interpolated bound, alpha = 0.5, on the mutual information of two views, digits (Poole et al., ICML 2019).

mmkernel train configs/mi/digits_interpolated.py
No published result. Measured by us: see model_zoo.md.
alpha = 1 is InfoNCE over N - 1 images, alpha = 0 the TUBA bound with the learned baseline a(y).
"""

_base_ = 'digits_infonce.py'

model = dict(head=dict(bound='interpolated', alpha=0.5, log_baseline='learned'))
