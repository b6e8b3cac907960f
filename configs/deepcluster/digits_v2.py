"""DeepCluster-v2, q = 64, scikit-learn's digits (Caron et al., NeurIPS 2020). A recipe of ours: under 40 s on one core.

mmkernel train configs/deepcluster/digits_v2.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 64)),
    head=dict(type='ClusterHead', num_clusters=(20, 20, 20), temperature=0.1),
    batching='all',
)
default_hooks = dict(cluster=dict(type='ClusterHook', features='memory', iterations=10))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=0.4))  # x 64 / 256 = 0.1
