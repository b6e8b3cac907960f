"""SFRIK, L = 2, q = 256, scikit-learn's digits. A recipe of ours that takes under a minute on two cores.

mmkernel train configs/sfrik/digits_L2.py
No published result. Measured by us: see docs/quickstart.md.
Mean and covariance are matched to those of the uniform distribution.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='LegendreKernel', weights=(1.0, 40.0)),
        alignment_weight=20.0,
        reduction='sample',
    )
)
