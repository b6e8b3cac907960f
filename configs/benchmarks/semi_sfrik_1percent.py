"""1 % of the labels as SFRIK fine-tunes (Zheng et al., ICLR 2023): backbone 0.004, head 1.0.

torchrun --nproc_per_node 8 -m mmkernel classify configs/sfrik/r50_L3_q32768.py CHECKPOINT \
    --protocol configs/benchmarks/semi_sfrik_1percent.py
Published: 46.6 % top-1, 73.0 % top-5 (200 epochs of pretraining). Not measured by us.
"""

_base_ = '../_base_/imagenet_semi.py'

optim_wrapper = dict(optimizer=dict(lr=1.0), paramwise_cfg=dict(backbone=dict(lr=0.004)))
