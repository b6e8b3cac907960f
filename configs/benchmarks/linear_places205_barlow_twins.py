"""Linear classifier on Places205 as Barlow Twins trains it (Zbontar et al., ICML 2021, appendix C.1), 14 epochs.

The figures are also those of VISSL's protocol for a ResNet-50, but there each stage has a head.

torchrun --nproc_per_node 8 -m mmkernel classify configs/barlow_twins/r50.py CHECKPOINT \
    --protocol configs/benchmarks/linear_places205_barlow_twins.py
Published: 54.1 % top-1. Not measured by us.
"""

_base_ = 'linear_places205.py'

train_cfg = dict(max_epochs=14)
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
param_scheduler = dict(milestones=[4, 8, 12])
