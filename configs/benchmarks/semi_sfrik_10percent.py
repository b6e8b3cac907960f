"""10 % of the labels as SFRIK fine-tunes (Zheng et al., ICLR 2023): backbone 0.02, head 0.1.

torchrun --nproc_per_node 8 -m mmkernel classify configs/sfrik/r50_L3_q32768.py CHECKPOINT \
    --protocol configs/benchmarks/semi_sfrik_10percent.py
Published: 65.8 % top-1, 87.5 % top-5 (200 epochs of pretraining). Not measured by us.
"""

_base_ = '../_base_/imagenet_semi.py'

train_dataloader = dict(dataset=dict(source=dict(names='data/imagenet/10percent.txt')))
optim_wrapper = dict(optimizer=dict(lr=0.1), paramwise_cfg=dict(backbone=dict(lr=0.02)))
