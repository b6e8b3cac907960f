"""Variance and covariance terms added to SimSiam (Bardes et al., ICLR 2022, table 4), digits. A recipe of ours.

mmkernel train configs/vicreg/digits_simsiam_plus_moments.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../simsiam/digits.py'

model = dict(
    head=dict(
        _delete_=True,
        type='SumHead',
        heads=dict(
            prediction=dict(type='CosinePredictionHead', weight=0.5),
            moments=dict(
                type='VarianceCovarianceHead', invariance_weight=0.0, variance_weight=0.1, covariance_weight=0.01
            ),
        ),
    )
)
