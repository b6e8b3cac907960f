"""Fine-tuning on DTD, split 1, metric: top-1 (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_dtd.py
Published: 73.2 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=47, norm_momentum=0.9)  # max(1 - 10 / 15, 0.9)
train_dataloader = dict(dataset=dict(source=dict(_delete_=True, type='DTD', root='data/dtd', split='trainval')))
evaluation = dict(
    train=dict(_delete_=True, type='DTD', root='data/dtd', split='trainval'),
    test=dict(_delete_=True, type='DTD', root='data/dtd', split='test'),
)
train_cfg = dict(max_epochs=1334)  # of 15 steps
