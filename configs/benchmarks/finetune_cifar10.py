"""Fine-tuning on CIFAR-10, metric: top-1 (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_cifar10.py
Published: 97.7 % with this ResNet-50 (table B.5). Not measured by us.
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=10, norm_momentum=0.949)  # max(1 - 10 / 196, 0.9)
train_dataloader = dict(dataset=dict(source=dict(_delete_=True, type='CIFAR10', root='data/cifar10', split='train')))
evaluation = dict(
    train=dict(_delete_=True, type='CIFAR10', root='data/cifar10', split='train'),
    test=dict(_delete_=True, type='CIFAR10', root='data/cifar10', split='test'),
)
train_cfg = dict(max_epochs=103)  # of 196 steps
