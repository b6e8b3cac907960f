"""Fine-tuning on Oxford-IIIT Pets, metric: mean per class (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_pets.py
Published: 89.2 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=37, norm_momentum=0.9)  # max(1 - 10 / 15, 0.9)
train_dataloader = dict(dataset=dict(source=dict(_delete_=True, type='OxfordPets', root='data/pets', split='trainval')))
evaluation = dict(
    metric='mean_per_class',
    train=dict(_delete_=True, type='OxfordPets', root='data/pets', split='trainval'),
    test=dict(_delete_=True, type='OxfordPets', root='data/pets', split='test'),
)
train_cfg = dict(max_epochs=1334)  # of 15 steps
