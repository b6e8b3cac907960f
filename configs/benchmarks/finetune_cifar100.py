"""Fine-tuning on CIFAR-100, metric: top-1 (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_cifar100.py
Published: 85.9 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=100, norm_momentum=0.949)  # max(1 - 10 / 196, 0.9)
train_dataloader = dict(dataset=dict(source=dict(_delete_=True, type='CIFAR100', root='data/cifar100', split='train')))
evaluation = dict(
    train=dict(_delete_=True, type='CIFAR100', root='data/cifar100', split='train'),
    test=dict(_delete_=True, type='CIFAR100', root='data/cifar100', split='test'),
)
train_cfg = dict(max_epochs=103)  # of 196 steps
