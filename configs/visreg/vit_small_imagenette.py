"""VISReg, ViT-S/8 at 128 px, q = 128, 4096 slices, Imagenette (Wu, Balestriero & Levine, arXiv 2606.02572, 2026).

mmkernel train configs/visreg/vit_small_imagenette.py
No published result for this recipe of their repository, 800 epochs. Not measured by us.
"""

_base_ = ['../_base_/imagenette_four_views.py', '../_base_/adamw_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='vit_small_patch8_224', dynamic_img_size=True, drop_path_rate=0.1),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 128), last_bias=True),
    head=dict(
        type='SlicedHead', statistic='wasserstein', standardize=True, num_slices=4096, alignment_weight=0.4,
        normality_weight=0.6, scale_weight=0.6, center_weight=0.6,
    ),
    batching='all',
)  # fmt: skip
train_dataloader = dict(batch_size=64, dataset=dict(views=dict(crops=dict(crop=dict(interpolation='bicubic')))))
train_cfg = dict(max_epochs=800)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=1.0), paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
)
param_scheduler = dict(start_factor=0.001)
