"""Linear classifier as VICReg trains it (Bardes et al., ICLR 2022): rate 0.02, 100 epochs.

torchrun --nproc_per_node 8 -m mmkernel classify configs/vicreg/r50_1000e.py CHECKPOINT \
    --protocol configs/benchmarks/linear_vicreg.py
Published: 73.2 % top-1. Not measured by us.
"""

_base_ = '../_base_/imagenet_classifier.py'

optim_wrapper = dict(optimizer=dict(lr=0.02, weight_decay=1e-6))
