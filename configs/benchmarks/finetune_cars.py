"""Fine-tuning on Stanford Cars, metric: top-1 (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_cars.py
Published: 91.3 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=196, norm_momentum=0.9)  # max(1 - 10 / 32, 0.9)
train_dataloader = dict(dataset=dict(source=dict(_delete_=True, type='StanfordCars', root='data/cars', split='train')))
evaluation = dict(
    train=dict(_delete_=True, type='StanfordCars', root='data/cars', split='train'),
    test=dict(_delete_=True, type='StanfordCars', root='data/cars', split='test'),
)
train_cfg = dict(max_epochs=625)  # of 32 steps
