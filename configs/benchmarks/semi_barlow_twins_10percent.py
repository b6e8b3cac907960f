"""10 % of the labels as Barlow Twins fine-tunes (Zbontar et al., ICML 2021, appendix B.2): backbone 0.002, head 0.5.

torchrun --nproc_per_node 8 -m mmkernel classify configs/barlow_twins/r50.py CHECKPOINT \
    --protocol configs/benchmarks/semi_barlow_twins_10percent.py
Published: 69.7 % top-1, 89.3 % top-5. Not measured by us.
"""

_base_ = 'semi_barlow_twins_1percent.py'

train_dataloader = dict(dataset=dict(source=dict(names='data/imagenet/10percent.txt')))
