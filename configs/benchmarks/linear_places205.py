"""Linear classifier on Places205, 28 epochs, rate divided by ten at 7, 14 and 21 (the schedule of mmselfsup).

One head on pooled features, standardised by a batch norm as theirs; random resized crops. Theirs has a head per stage and
crops of 224 from the middle 256.

torchrun --nproc_per_node 8 -m mmkernel classify configs/sfrik/r50_L3_q32768.py CHECKPOINT \
    --protocol configs/benchmarks/linear_places205.py
Published: 54.4 % top-1, 83.2 % top-5 (Zheng et al., ICLR 2023; their script is not public). Not measured by us.
"""

_base_ = '../_base_/imagenet_classifier.py'

model = dict(num_classes=205, head_norm=dict(type='BN', affine=False))
train_dataloader = dict(
    dataset=dict(
        source=dict(_delete_=True, type='ImageFolder', root='data/places205/train', labels=True, upright=False)
    )
)
evaluation = dict(
    train=dict(_delete_=True, type='ImageFolder', root='data/places205/train', labels=True, upright=False),
    test=dict(_delete_=True, type='ImageFolder', root='data/places205/val', labels=True, upright=False),
)
train_cfg = dict(max_epochs=28)
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=1e-4, nesterov=True))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[7, 14, 21], gamma=0.1)
