"""DeepCluster, scikit-learn's digits (Caron et al., ECCV 2018). A recipe of ours: under 40 s on one core.

mmkernel train configs/deepcluster/digits_v1.py
No published result. Measured by us: see model_zoo.md.
Small batches, clusters that stay for two epochs and a fast classifier: it starts anew with each clustering.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(_delete_=True, type='IdentityNeck'),
    head=dict(type='ClusterHead', num_clusters=(60,), temperature=1.0, normalize=False, classifier='linear'),
    batching='all',
)
train_dataloader = dict(batch_size=32, sampler=dict(type='BalancedSampler'))
default_hooks = dict(cluster=dict(type='ClusterHook', features='backbone', iterations=20, interval=2, pca_dim=32))
optim_wrapper = dict(
    optimizer=dict(lr=0.4),
    paramwise_cfg=dict(custom_keys={'head.classifiers': dict(lr_mult=10.0, momentum=0.0)}),
)
