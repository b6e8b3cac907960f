"""KerJEPA's MMD to N(0, I) with an inverse multiquadric kernel (arXiv 2512.19605), q = 64, digits. A recipe of ours.

mmkernel train configs/kerjepa/digits.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../lejepa/digits_all_slices.py'

model = dict(head=dict(kernel=dict(_delete_=True, type='InverseMultiquadricKernel', c='q'), kernel_weight=0.05))
