"""DeepCluster, ResNet-50, 10 000 clusters, ImageNet-1k (Caron et al., ECCV 2018, who used AlexNet and VGG-16).

bash tools/dist_train.sh configs/deepcluster/r50_v1.py 8
No published result for this setting. Not measured by us.
OpenMMLab's ResNet-50 after Sobel filters reached 46.9 % linear top-1; this one sees colours.
"""

_base_ = ['../_base_/imagenet_one_view.py', '../_base_/sgd_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50'),
    neck=dict(type='IdentityNeck'),
    head=dict(type='ClusterHead', num_clusters=(10000,), temperature=1.0, normalize=False, classifier='linear'),
)
default_hooks = dict(cluster=dict(type='ClusterHook', features='backbone', iterations=20, pca_dim=256))
evaluation = dict(transform=dict(interpolation='bilinear'))  # the view that is clustered, too
train_dataloader = dict(batch_size=32, sampler=dict(type='BalancedSampler'))
optim_wrapper = dict(
    precision='bfloat16',
    optimizer=dict(lr=0.05, weight_decay=1e-5),
    paramwise_cfg=dict(custom_keys={'head.classifiers': dict(momentum=0.0)}),
)
param_scheduler = dict(end_factor=1.0)  # constant, as published
