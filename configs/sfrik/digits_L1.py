"""SFRIK, L = 1, q = 256, scikit-learn's digits. A recipe of ours that takes under a minute on two cores.

mmkernel train configs/sfrik/digits_L1.py
No published result. Measured by us: see docs/quickstart.md.
Only the mean is pushed to zero: expect few dimensions to be used. b_1 = 40 keeps that push as strong as the others.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='LegendreKernel', weights=(40.0,)),
        alignment_weight=20.0,
        reduction='sample',
    )
)
