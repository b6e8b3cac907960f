"""10 % of the labels as VICReg fine-tunes (Bardes et al., ICLR 2022): backbone 0.01, head 0.1.

torchrun --nproc_per_node 8 -m mmkernel classify configs/vicreg/r50_1000e.py CHECKPOINT \
    --protocol configs/benchmarks/semi_vicreg_10percent.py
Published: 69.5 % top-1, 89.5 % top-5. Not measured by us.
"""

_base_ = '../_base_/imagenet_semi.py'

train_dataloader = dict(dataset=dict(source=dict(names='data/imagenet/10percent.txt')))
sync_bn = False  # their evaluate.py leaves the statistics to each GPU
optim_wrapper = dict(optimizer=dict(lr=0.1), paramwise_cfg=dict(backbone=dict(lr=0.01)))
