"""SFRIK, L = 2, a vision transformer of 0.06 M parameters, crops 2 x 32 + 2 x 16, scikit-learn's digits. A recipe of ours.

mmkernel train configs/sfrik/digits_vit.py
No published result. Measured by us: 83.6 % kNN after 20 epochs, seed 0, on a CPU (220 steps are few for a transformer).
Positions are resampled for the small crops; two registers; learning rates fall from the last layer to the first.
"""

_base_ = '../_base_/digits_recipe.py'

_ops = dict(
    affine=dict(type='RandomAffine', degrees=15.0, translate=0.1, scale=(0.85, 1.15), shear=10.0, probability=1.0),
    jitter=dict(type='ColorJitter', brightness=0.3, contrast=0.4, probability=0.8),
)
_crop = dict(type='RandomResizedCrop', scale=(0.4, 0.8), ratio=(3 / 4, 4 / 3), interpolation='bilinear')
model = dict(
    backbone=dict(
        _delete_=True, type='TIMMBackbone', model_name='vit_tiny_patch16_224', img_size=32, patch_size=8, in_channels=1,
        embed_dim=48, depth=2, num_heads=3, reg_tokens=2,
    ),
    head=dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 40.0)), alignment_weight=20.0,
              reduction='sample', regularize='target'),
    target_views=(0, 1),
    batching='size',
)  # fmt: skip
_views = dict(both=dict(size=32), small=dict(count=2, size=16, crop=_crop, ops=_ops))
train_dataloader = dict(dataset=dict(source=dict(size=32), views=_views))
evaluation = dict(train=dict(size=32), test=dict(size=32))
optim_wrapper = dict(layer_decay=0.75, optimizer=dict(_delete_=True, type='AdamW', lr=5e-3, weight_decay=0.05))
lr_scaling = None
param_scheduler = dict(warmup_epochs=2)
del _ops, _crop, _views
