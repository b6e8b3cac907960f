"""MoCo v1 (He et al., CVPR 2020), queue of 1024 rows, scikit-learn's digits. A recipe of ours, under a minute on two cores.

mmkernel train configs/moco/digits_v1.py
No published result. Measured by us: see model_zoo.md.
A linear projector and a sharper softmax than v2's.
"""

_base_ = 'digits_v2.py'

model = dict(neck=dict(dims=(128,)), head=dict(temperature=0.07))
