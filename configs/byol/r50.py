"""BYOL, ResNet-50, q = 256, ImageNet-1k (Grill et al., NeurIPS 2020).

bash tools/dist_train.sh configs/byol/r50.py 8
Published: 74.3 % linear top-1 after 1000 epochs (batch 4096). Not measured by us.
Brightness and contrast are torchvision's, a factor and one grey mean; theirs adds to the brightness and has a mean per channel.
"""

_base_ = ['../_base_/imagenet_two_views.py', '../_base_/lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50'),
    neck=dict(type='MLPNeck', dims=(4096, 256)),
    predictor=dict(type='MLPNeck', dims=(4096, 256)),
    target=dict(type='MomentumTarget'),
    head=dict(type='CosinePredictionHead', weight=2.0),  # the sum of the two directions
)
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(precision='float16', optimizer=dict(lr=0.2, weight_decay=1.5e-6))  # x 4096 / 256 = 3.2
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.996, end_momentum=1.0, schedule='cosine'))
