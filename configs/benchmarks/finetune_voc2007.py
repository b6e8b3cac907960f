"""Fine-tuning on PASCAL VOC2007, several classes per image, metric: 11-point mAP (Chen et al., ICML 2020, appendix B.8).

mmkernel classify configs/simclr/r50.py CHECKPOINT --protocol configs/benchmarks/finetune_voc2007.py
Published: 84.1 % with this ResNet-50 (table B.5). Not measured by us; the papers do not give their loss, ours is one
logistic regression per class (see SeveralClasses).
"""

_base_ = '../_base_/transfer_fine_tuning.py'

model = dict(num_classes=20, objective=dict(type='SeveralClasses'), norm_momentum=0.9)  # max(1 - 10 / 20, 0.9)
train_dataloader = dict(dataset=dict(source=dict(_delete_=True, type='VOC2007', root='data/voc2007', split='trainval')))
evaluation = dict(
    train=dict(_delete_=True, type='VOC2007', root='data/voc2007', split='trainval'),
    test=dict(_delete_=True, type='VOC2007', root='data/voc2007', split='test'),
)
train_cfg = dict(max_epochs=1000)  # of 20 steps
