"""DeepCluster-v2, ResNet-18 with a small stem, 3 x 3000 clusters, CIFAR-10 (Caron et al., NeurIPS 2020), solo-learn's recipe.

mmkernel train configs/deepcluster/cifar10_v2.py
Published: 88.9 % top-1 of a classifier trained online, 1000 epochs (da Costa et al., JMLR 2022). Not measured by us.
"""

_base_ = ['../_base_/cifar10_strong_views.py', '../_base_/cifar_lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(2048, 128), last_bias=True),
    head=dict(type='ClusterHead', num_clusters=(3000, 3000, 3000), temperature=0.1),
)
default_hooks = dict(cluster=dict(type='ClusterHook', features='memory', iterations=10))
optim_wrapper = dict(optimizer=dict(lr=0.6, weight_decay=1e-6))
param_scheduler = dict(warmup_epochs=11, start_factor=0.0, end_factor=0.001)
