"""Shuffled DBN, scikit-learn's digits (Hua et al., ICCV 2021). A recipe of ours, under a minute on two cores.

mmkernel train configs/dbn/digits_shuffled_dbn.py
No published result. Measured by us: see model_zoo.md.
The plain squared distance; only the norm at the end of the projector keeps the views from collapsing.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 128), last_norm=dict(type='ShuffledDBN', groups=8)),
    head=dict(
        type='VarianceCovarianceHead',
        invariance_weight=1.0,
        variance_weight=0.0,
        covariance_weight=0.0,
        reduction='sample',
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.02))
