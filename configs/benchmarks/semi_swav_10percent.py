"""10 % of the labels as SwAV fine-tunes (Caron et al., NeurIPS 2020): backbone 0.01, head 0.2, x 0.2 at 12 and 16.

torchrun --nproc_per_node 8 -m mmkernel classify configs/swav/r50.py CHECKPOINT \
    --protocol configs/benchmarks/semi_swav_10percent.py
Published: 70.2 % top-1, 89.9 % top-5 (800 epochs of pretraining). Not measured by us.
"""

_base_ = '../_base_/imagenet_semi.py'

model = dict(head_std=None)  # as nn.Linear draws it
train_dataloader = dict(dataset=dict(source=dict(names='data/imagenet/10percent.txt')))
optim_wrapper = dict(optimizer=dict(lr=0.2), paramwise_cfg=dict(backbone=dict(lr=0.01)))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[12, 16], gamma=0.2)
