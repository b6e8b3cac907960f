"""SimCLR with strong Gaussian noise in half of the views, scikit-learn's digits: an ablation of Chen et al. (ICML 2020).

mmkernel train configs/simclr/digits_noise.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = 'digits.py'

train_dataloader = dict(
    dataset=dict(views=dict(both=dict(ops=dict(noise=dict(type='GaussianNoise', sigma=(20.0, 60.0), probability=0.5)))))
)
