"""LeJEPA, ResNet-50, 1024 slices, crops 2 x 224 + 6 x 98, ImageNet-1k (Balestriero & LeCun, arXiv 2511.08544, 2025).

bash tools/dist_train.sh configs/lejepa/r50.py 8
No published result for this recipe: rate, decay and views are those of their README. Not measured by us.
Batch, projector, length and lambda = .05 are ours.
"""

_base_ = ['../_base_/imagenet_2p6_views.py', '../_base_/adamw_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50'),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 128), last_bias=True),
    head=dict(
        type='SlicedHead', statistic='epps_pulley', num_slices=1024, alignment_weight=0.95, normality_weight=0.05
    ),
    target_views=(0, 1),  # every view is drawn to the mean of these
    batching='size',
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=5e-4))
