"""W-MSE 2, q = 16, scikit-learn's digits (Ermolov et al., ICML 2021). A recipe of ours, under a minute on two cores.

mmkernel train configs/wmse/digits_2views.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 16)),
    neck_batching='all',
    head=dict(type='WhiteningHead', method='cholesky', sub_batch_size=128),
)
optim_wrapper = dict(optimizer=dict(lr=0.3))  # x 128 / 256 = 0.15
