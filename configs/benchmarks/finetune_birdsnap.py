"""Fine-tuning on Birdsnap, metric: top-1 (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_birdsnap.py
Published: 75.9 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=500, norm_momentum=0.946)  # max(1 - 10 / 186, 0.9)
train_dataloader = dict(dataset=dict(source=dict(_delete_=True, type='Birdsnap', root='data/birdsnap', split='train')))
evaluation = dict(
    train=dict(_delete_=True, type='Birdsnap', root='data/birdsnap', split='train'),
    test=dict(_delete_=True, type='Birdsnap', root='data/birdsnap', split='test'),
)
train_cfg = dict(max_epochs=108)  # of 186 steps
