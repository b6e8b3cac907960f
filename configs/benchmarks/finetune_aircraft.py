"""Fine-tuning on FGVC Aircraft, metric: mean per class (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_aircraft.py
Published: 88.1 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=100, norm_momentum=0.9)  # max(1 - 10 / 27, 0.9)
train_dataloader = dict(
    dataset=dict(source=dict(_delete_=True, type='FGVCAircraft', root='data/aircraft', split='trainval'))
)
evaluation = dict(
    metric='mean_per_class',
    train=dict(_delete_=True, type='FGVCAircraft', root='data/aircraft', split='trainval'),
    test=dict(_delete_=True, type='FGVCAircraft', root='data/aircraft', split='test'),
)
train_cfg = dict(max_epochs=741)  # of 27 steps
