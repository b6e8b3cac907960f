"""1 % of the labels as SwAV fine-tunes (Caron et al., NeurIPS 2020): backbone 0.02, head 5, x 0.2 at 12 and 16.

torchrun --nproc_per_node 8 -m mmkernel classify configs/swav/r50.py CHECKPOINT \
    --protocol configs/benchmarks/semi_swav_1percent.py
Published: 53.9 % top-1, 78.5 % top-5 (800 epochs of pretraining). Not measured by us.
"""

_base_ = '../_base_/imagenet_semi.py'

model = dict(head_std=None)  # as nn.Linear draws it
optim_wrapper = dict(optimizer=dict(lr=5.0), paramwise_cfg=dict(backbone=dict(lr=0.02)))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[12, 16], gamma=0.2)
