"""CPC, patches of 8 px, rows predicted downwards, scikit-learn's digits (van den Oord et al., 2018). Under 40 s on one core.

mmkernel train configs/cpc/digits_v1.py
No published result. Measured by us: see model_zoo.md.
Trained on patches, evaluated on whole images: the backbone is convolutions and an average over positions.
"""

_base_ = '../_base_/digits_patches.py'

model = dict(
    neck=dict(dims=(64,)),
    head=dict(type='PredictiveCodingHead', steps=2, directions=('down',), grid=(3, 3), context=dict(dim=64, blocks=2)),
    batching='all',
)
train_cfg = dict(max_epochs=15)
