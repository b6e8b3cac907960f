"""W-MSE 4, q = 32, scikit-learn's digits (Ermolov et al., ICML 2021). A recipe of ours, about a minute on two cores.

python tools/train.py configs/wmse/digits_4views.py
No published result. Run here: see model_zoo.md.
"""

_base_ = 'digits_2views.py'

train_dataloader = dict(dataset=dict(views=dict(both=dict(count=4))))
train_cfg = dict(max_epochs=12)  # as many views in all as with two views in 24 epochs
