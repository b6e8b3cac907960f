"""MoCo v1, ResNet-50, queue of 65 536 rows, ImageNet-1k (He et al., CVPR 2020).

bash tools/dist_train.sh configs/moco/r50_v1.py 8
Published: 60.6 % linear top-1 after 200 epochs (batch 256). Not measured by us.
"""

_base_ = ['../_base_/imagenet_mild_views.py', '../_base_/sgd_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50'),
    neck=dict(type='MLPNeck', dims=(128,), last_bias=True),
    target=dict(type='MomentumTarget', shuffle_bn=True),
    head=dict(type='InfoNCEHead', temperature=0.07, negatives='queue', queue=dict(type='FeatureQueue', length=65536)),
    online_views=(0,),
    target_views=(1,),
)
optim_wrapper = dict(optimizer=dict(lr=0.03))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[120, 160], gamma=0.1, by_epoch=True)
sync_bn = False
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.999, schedule='constant'))
