"""10 % of the labels, one cell of the grid of mmselfsup: head = 10 x backbone, x 0.2 at 12 and 16.

The grid: backbone 0.1, 0.01, 0.001; head 1, 10, 100 times that; batch 256 = 4 x 64 there.

torchrun --nproc_per_node 8 -m mmkernel classify configs/simclr/r50.py CHECKPOINT \
    --protocol configs/benchmarks/semi_mm_10percent.py
No published result for this cell is at hand. Not measured by us.
"""

_base_ = '../_base_/imagenet_semi.py'

train_dataloader = dict(dataset=dict(source=dict(names='data/imagenet/10percent.txt')))
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=5e-4), paramwise_cfg=dict(backbone=dict(lr=0.01)))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[12, 16], gamma=0.2)
