"""1 % of the labels as VICReg fine-tunes (Bardes et al., ICLR 2022): backbone 0.03, head 0.08.

torchrun --nproc_per_node 8 -m mmkernel classify configs/vicreg/r50_1000e.py CHECKPOINT \
    --protocol configs/benchmarks/semi_vicreg_1percent.py
Published: 54.8 % top-1, 79.4 % top-5. Not measured by us.
"""

_base_ = '../_base_/imagenet_semi.py'

sync_bn = False  # their evaluate.py leaves the statistics to each GPU
optim_wrapper = dict(optimizer=dict(lr=0.08), paramwise_cfg=dict(backbone=dict(lr=0.03)))
