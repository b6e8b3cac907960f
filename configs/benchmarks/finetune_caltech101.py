"""Fine-tuning on Caltech-101, metric: mean per class (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_caltech101.py
Published: 92.1 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=102, norm_momentum=0.9)  # max(1 - 10 / 12, 0.9)
train_dataloader = dict(
    dataset=dict(source=dict(_delete_=True, type='Caltech101', root='data/caltech101', split='train'))
)
evaluation = dict(
    metric='mean_per_class',
    train=dict(_delete_=True, type='Caltech101', root='data/caltech101', split='train'),
    test=dict(_delete_=True, type='Caltech101', root='data/caltech101', split='test'),
)
train_cfg = dict(max_epochs=1667)  # of 12 steps
