"""Fine-tuning on SUN397, metric: top-1 (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_sun397.py
Published: 63.5 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=397, norm_momentum=0.9)  # max(1 - 10 / 78, 0.9)
train_dataloader = dict(dataset=dict(source=dict(_delete_=True, type='SUN397', root='data/sun397', split='train')))
evaluation = dict(
    train=dict(_delete_=True, type='SUN397', root='data/sun397', split='train'),
    test=dict(_delete_=True, type='SUN397', root='data/sun397', split='test'),
)
train_cfg = dict(max_epochs=257)  # of 78 steps
