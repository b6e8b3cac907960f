"""DeepCluster, ResNet-18 with a small stem, 1000 clusters, CIFAR-10 (Caron et al., ECCV 2018). A recipe of ours.

mmkernel train configs/deepcluster/cifar10_v1.py
No published result. Not measured by us.
"""

_base_ = ['../_base_/cifar10_weak_views.py', '../_base_/sgd_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='IdentityNeck'),
    head=dict(type='ClusterHead', num_clusters=(1000,), temperature=1.0, normalize=False, classifier='linear'),
)
train_dataloader = dict(sampler=dict(type='BalancedSampler'))
default_hooks = dict(cluster=dict(type='ClusterHook', features='backbone', iterations=20, pca_dim=256))
optim_wrapper = dict(
    precision='bfloat16',
    optimizer=dict(lr=0.1, weight_decay=1e-5),
    paramwise_cfg=dict(custom_keys={'head.classifiers': dict(lr_mult=5.0, momentum=0.0)}),
)
