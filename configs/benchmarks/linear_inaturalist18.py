"""Linear classifier on iNaturalist 2018 (8142 species), 84 epochs, rate divided by ten at 24, 48 and 72.

torchrun --nproc_per_node 8 tools/benchmarks/classify.py configs/vicreg/r50_1000e.py CHECKPOINT \
    --protocol configs/benchmarks/linear_inaturalist18.py
Published: 47.0 % top-1 (Bardes et al., ICLR 2022; their rate is not at hand, this one is that of Places205). Not run here.
"""

_base_ = '../_base_/imagenet_classifier.py'

model = dict(num_classes=8142)
train_dataloader = dict(
    dataset=dict(
        source=dict(_delete_=True, type='ImageFolder', root='data/inaturalist18/train', labels=True, upright=False)
    )
)
evaluation = dict(
    train=dict(_delete_=True, type='ImageFolder', root='data/inaturalist18/train', labels=True, upright=False),
    test=dict(_delete_=True, type='ImageFolder', root='data/inaturalist18/val', labels=True, upright=False),
)
train_cfg = dict(max_epochs=84)
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=1e-4, nesterov=True))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[24, 48, 72], gamma=0.1)
