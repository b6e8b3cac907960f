"""Linear classifier on iNaturalist 2018 (8142 species) as VICReg trains it: rate 0.005, 84 epochs, / 10 at 24, 48 and 72.

The paper names VISSL; Nesterov's momentum and the batch norm before the classifier are VISSL's.

torchrun --nproc_per_node 8 -m mmkernel classify configs/vicreg/r50_1000e.py CHECKPOINT \
    --protocol configs/benchmarks/linear_inaturalist18.py
Published: 47.0 % top-1 (Bardes et al., ICLR 2022, appendix C.3). Not measured by us.
"""

_base_ = '../_base_/imagenet_classifier.py'

model = dict(num_classes=8142, head_norm=dict(type='BN', affine=False))
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
optim_wrapper = dict(optimizer=dict(lr=0.005, weight_decay=1e-4, nesterov=True))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[24, 48, 72], gamma=0.1)
