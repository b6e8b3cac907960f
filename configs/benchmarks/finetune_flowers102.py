"""Fine-tuning on Flowers-102, metric: mean per class (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_flowers102.py
Published: 97.0 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=102, norm_momentum=0.9)  # max(1 - 10 / 8, 0.9)
train_dataloader = dict(
    dataset=dict(source=dict(_delete_=True, type='Flowers102', root='data/flowers102', split='trainval'))
)
evaluation = dict(
    metric='mean_per_class',
    train=dict(_delete_=True, type='Flowers102', root='data/flowers102', split='trainval'),
    test=dict(_delete_=True, type='Flowers102', root='data/flowers102', split='test'),
)
train_cfg = dict(max_epochs=2500)  # of 8 steps
