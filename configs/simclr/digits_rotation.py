"""SimCLR with turns by 0, 90, 180 or 270 degrees besides, scikit-learn's digits: an ablation of Chen et al. (ICML 2020).

mmkernel train configs/simclr/digits_rotation.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = 'digits.py'

train_dataloader = dict(
    dataset=dict(views=dict(both=dict(ops=dict(rotation=dict(type='RandomRotation', angles=(0, 90, 180, 270))))))
)
