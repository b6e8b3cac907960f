"""1 % of the labels as Barlow Twins fine-tunes (Zbontar et al., ICML 2021, appendix B.2): backbone 0.002, head 0.5.

Rates are multiplied by 0.2 at epochs 12 and 16. The README of the released weights (73.5 %) has another recipe without a
figure: 0.005 for the backbone, and a cosine per epoch.

torchrun --nproc_per_node 8 -m mmkernel classify configs/barlow_twins/r50.py CHECKPOINT \
    --protocol configs/benchmarks/semi_barlow_twins_1percent.py
Published: 55.0 % top-1, 79.2 % top-5. Not measured by us.
"""

_base_ = '../_base_/imagenet_semi.py'

sync_bn = False  # their evaluate.py leaves the statistics to each GPU
optim_wrapper = dict(optimizer=dict(lr=0.5), paramwise_cfg=dict(backbone=dict(lr=0.002)))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[12, 16], gamma=0.2)
