"""LeJEPA, ViT-S/16, 1024 slices, crops 2 x 224 + 6 x 96, ImageNet-1k (Balestriero & LeCun, arXiv 2511.08544, 2025).

bash tools/dist_train.sh configs/lejepa/vit_small.py 8
Published: 64.0 % linear top-1 after 100 epochs (lightly's run, to be repeated after a fix of theirs). Not measured by us.
Batch, projector, schedule and lambda as there; it solarizes one global view alone, the authors' README every view.
"""

_base_ = ['../_base_/imagenet_2p6_views.py', '../_base_/adamw_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='vit_small_patch16_224', drop_path_rate=0.1),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 64), last_bias=True),
    head=dict(
        type='SlicedHead', statistic='epps_pulley', num_slices=1024, alignment_weight=0.95, normality_weight=0.05
    ),
    target_views=(0, 1),
    batching='size',
)
train_dataloader = dict(batch_size=64, dataset=dict(views=dict(small=dict(size=96))))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
