"""MoCo v2, ResNet-50, queue of 65 536 rows, ImageNet-1k (Chen et al., 2020).

bash tools/dist_train.sh configs/moco/r50_v2.py 8
Published: 67.7 % linear top-1 after 200 epochs (batch 256). Not measured by us.
"""

_base_ = ['../_base_/imagenet_moderate_views.py', '../_base_/sgd_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50'),
    neck=dict(type='MLPNeck', dims=(2048, 128), norm=None, last_bias=True),
    target=dict(type='MomentumTarget', shuffle_bn=True),  # on one GPU: sub_batches=8
    head=dict(type='InfoNCEHead', temperature=0.2, negatives='queue', queue=dict(type='FeatureQueue', length=65536)),
    online_views=(0,),
    target_views=(1,),
)
optim_wrapper = dict(optimizer=dict(lr=0.03))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR')  # per epoch
sync_bn = False  # shuffling stands in for it
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.999, schedule='constant'))
