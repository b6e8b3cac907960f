"""Linear classifier on Places205 as VICReg trains it (Bardes et al., ICLR 2022, appendix C.3): rate 0.003, 28 epochs.

The paper names VISSL; Nesterov's momentum and the batch norm before the classifier are VISSL's.

torchrun --nproc_per_node 8 -m mmkernel classify configs/vicreg/r50_1000e.py CHECKPOINT \
    --protocol configs/benchmarks/linear_places205_vicreg.py
Published: 54.3 % top-1. Not measured by us.
"""

_base_ = 'linear_places205.py'

optim_wrapper = dict(optimizer=dict(lr=0.003))
param_scheduler = dict(milestones=[4, 8, 12])
