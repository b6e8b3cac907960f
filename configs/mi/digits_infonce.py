"""InfoNCE bound on the mutual information of two views, digits (Poole et al., ICML 2019). A recipe of ours.

mmkernel train configs/mi/digits_infonce.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 128)),
    head=dict(
        type='MutualInformationHead',
        bound='infonce',
        critic=dict(type='SeparableCritic', dims=(), normalize=True, temperature=0.2),
    ),
)
