"""VISReg, ViT-B/16, q = 256, 4096 slices, crops 4 x 224 + 6 x 96, ImageNet-1k (Wu et al., arXiv 2606.02572, 2026).

bash tools/dist_train.sh configs/visreg/vit_base.py 8
Published: 75.7 % linear top-1 after 400 epochs. Not measured by us.
Their number of GPUs is not published: 8 are ours. Their projector has GELU, this one ReLU.
"""

_base_ = ['../_base_/imagenet_4p6_views.py', '../_base_/adamw_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='vit_base_patch16_224', drop_path_rate=0.1),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 256), last_bias=True),
    head=dict(
        type='SlicedHead', statistic='wasserstein', standardize=True, num_slices=4096, alignment_weight=0.1,
        normality_weight=0.9, scale_weight=0.9, center_weight=0.9,
    ),
    target_views=(0, 1, 2, 3),
    batching='size',
)  # fmt: skip
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=400)
optim_wrapper = dict(
    optimizer=dict(lr=9e-4), clip_grad=dict(max_norm=1.0), paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
)
param_scheduler = dict(warmup_epochs=5, start_factor=0.001)
