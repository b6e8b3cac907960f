"""Fine-tuning on Food-101, metric: top-1 (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_food101.py
Published: 88.2 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=101, norm_momentum=0.966)  # max(1 - 10 / 296, 0.9)
train_dataloader = dict(dataset=dict(source=dict(_delete_=True, type='Food101', root='data/food101', split='train')))
evaluation = dict(
    train=dict(_delete_=True, type='Food101', root='data/food101', split='train'),
    test=dict(_delete_=True, type='Food101', root='data/food101', split='test'),
)
train_cfg = dict(max_epochs=68)  # of 296 steps
