"""DeepCluster-v2, ResNet-50, 3 x 3000 clusters, 2 x 224 + 6 x 96 crops, ImageNet-1k (Caron et al., NeurIPS 2020).

bash tools/dist_train.sh configs/deepcluster/r50_v2_800e.py 64
Published: 75.2 % linear top-1 after 800 epochs (batch 4096 = 64 x 64). Not measured by us.
Batch-norm statistics are those of all processes, as everywhere here; theirs are those of groups of 8 (apex).
Images that an epoch's incomplete last batch leaves out have no label in the next, as published.
The memory is first filled from both large crops at once (theirs: one after the other), and k-means starts from rows of all
processes (theirs: of the first), so that the number of processes does not matter.
"""

_base_ = ['../_base_/imagenet_multicrop.py', '../_base_/lars_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50'),
    neck=dict(type='MLPNeck', dims=(2048, 128), last_bias=True),
    head=dict(type='ClusterHead', num_clusters=(3000, 3000, 3000), temperature=0.1, memory_views=(0, 1)),
    batching='size',
    neck_batching='all',
)
data_preprocessor = dict(std=[0.228, 0.224, 0.225])
default_hooks = dict(cluster=dict(type='ClusterHook', features='memory', iterations=10))
train_dataloader = dict(batch_size=64)
train_cfg = dict(max_epochs=800)
optim_wrapper = dict(optimizer=dict(lr=0.3, norms='separate', scale_all=True))  # x 4096 / 256 = 4.8
param_scheduler = dict(start_factor=0.0625)  # 0.3 of 4.8
