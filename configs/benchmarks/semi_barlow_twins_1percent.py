"""1 % of the labels as Barlow Twins fine-tunes (Zbontar et al., ICML 2021): backbone 0.005, head 0.5.

The authors give no rates for 10 %.

torchrun --nproc_per_node 8 tools/benchmarks/classify.py configs/barlow_twins/r50.py CHECKPOINT \
    --protocol configs/benchmarks/semi_barlow_twins_1percent.py
Published: 55.0 % top-1, 79.2 % top-5. Not run here.
"""

_base_ = '../_base_/imagenet_semi.py'

optim_wrapper = dict(optimizer=dict(lr=0.5), paramwise_cfg=dict(backbone=dict(lr=0.005)))
