"""Variance and covariance terms added to BYOL (Bardes et al., ICLR 2022, table 4), digits. A recipe of ours.

mmkernel train configs/vicreg/digits_byol_plus_moments.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../byol/digits.py'

model = dict(
    head=dict(
        _delete_=True,
        type='SumHead',
        heads=dict(
            prediction=dict(type='CosinePredictionHead', weight=2.0),
            moments=dict(
                type='VarianceCovarianceHead', invariance_weight=0.0, variance_weight=0.1, covariance_weight=0.01
            ),
        ),
    )
)
