"""CPC v2, four directions, no batch norm, scikit-learn's digits (Henaff et al., ICML 2020). Under 40 s on one core.

mmkernel train configs/cpc/digits_v2.py
No published result. Measured by us: see model_zoo.md.
Trained on patches, evaluated on whole images: the backbone is convolutions and an average over positions.
"""

_base_ = 'digits_v1.py'

model = dict(
    backbone=dict(norm_layer='groupnorm1'),
    neck=dict(norm='LN'),
    head=dict(directions=('down', 'up', 'right', 'left')),
)
train_dataloader = dict(batch_size=64)
train_cfg = dict(max_epochs=12)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=0.01))  # x 64 / 256 = 0.0025
