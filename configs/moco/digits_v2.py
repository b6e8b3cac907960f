"""MoCo v2 (Chen et al., 2020), queue of 1024 rows, scikit-learn's digits. A recipe of ours, under a minute on two cores.

mmkernel train configs/moco/digits_v2.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 128), norm=None, last_bias=True),
    target=dict(type='MomentumTarget', shuffle_bn=True, sub_batches=4),  # stands in for 4 processes
    head=dict(
        type='InfoNCEHead', temperature=0.2, negatives='queue', queue=dict(type='FeatureQueue', length=1024, views=1)
    ),
    online_views=(0,),
    target_views=(1,),
)
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.99, schedule='constant'))
