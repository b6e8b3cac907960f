"""TiCo, ResNet-50, q = 256, ImageNet-1k (Zhu et al., arXiv 2206.10698, 2022), with lightly's optimizer.

bash tools/dist_train.sh configs/tico/r50.py 8
No published result for this recipe. Not measured by us. lightly's run has 49.7 % linear top-1 after 100 epochs of batch 256;
its contrast is that of the momentum branch, where no gradient passes. Here online rows are contrasted, both ways.
"""

_base_ = ['../_base_/imagenet_two_views.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50'),
    neck=dict(type='MLPNeck', dims=(4096, 256), last_bias=True),
    target=dict(type='MomentumTarget'),
    head=dict(type='QuadraticMemoryHead', momentum=0.9, alignment_weight=0.5, contrast_weight=8.0),
)
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(precision='bfloat16', optimizer=dict(lr=0.2, weight_decay=1.5e-6))  # x 256 / 256
default_hooks = dict(momentum=dict(type='MomentumUpdateHook', momentum=0.99, end_momentum=1.0, schedule='cosine'))
