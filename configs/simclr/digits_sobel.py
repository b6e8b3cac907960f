"""SimCLR with Sobel edges in half of the views besides, scikit-learn's digits: an ablation of Chen et al. (ICML 2020).

mmkernel train configs/simclr/digits_sobel.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = 'digits.py'

train_dataloader = dict(dataset=dict(views=dict(both=dict(ops=dict(sobel=dict(type='Sobel', probability=0.5))))))
