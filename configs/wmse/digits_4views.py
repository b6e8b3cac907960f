"""W-MSE 4, q = 16, scikit-learn's digits (Ermolov et al., ICML 2021). A recipe of ours, under a minute on two cores.

mmkernel train configs/wmse/digits_4views.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = 'digits_2views.py'

train_dataloader = dict(dataset=dict(views=dict(both=dict(count=4))))
train_cfg = dict(max_epochs=10)  # as many views in all as with two views in 20 epochs
param_scheduler = dict(warmup_epochs=3)
