"""LeJEPA, ViT-S/8 at 128 px, q = 16, 256 slices, Imagenette (Balestriero & LeCun, arXiv 2511.08544, 2025).

mmkernel train configs/lejepa/vit_small_imagenette.py
Published: 90.7 % top-1 of a classifier trained online, 800 epochs. Not measured by us.
The recipe of their minimal example, without its linear layer of 512 features between encoder and projector.
"""

_base_ = ['../_base_/imagenette_four_views.py', '../_base_/adamw_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='vit_small_patch8_224', img_size=128, drop_path_rate=0.1),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 16), last_bias=True),
    head=dict(type='SlicedHead', statistic='epps_pulley', num_slices=256, alignment_weight=0.98, normality_weight=0.02),
    batching='all',
)
train_dataloader = dict(batch_size=256)
train_cfg = dict(max_epochs=800)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = dict(end_factor=0.5)  # to 1e-3
