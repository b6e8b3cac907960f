"""Linear classifier of MoCo v1 and v2 (He et al., CVPR 2020; Chen et al., 2020): rate 30, divided by ten twice.

torchrun --nproc_per_node 8 -m mmkernel classify configs/moco/r50_v2.py CHECKPOINT \
    --protocol configs/benchmarks/linear_moco.py
Published: 67.7 % top-1 after 200 epochs of pretraining (v2). Not measured by us.
"""

_base_ = '../_base_/imagenet_classifier.py'

optim_wrapper = dict(optimizer=dict(lr=30.0, weight_decay=0.0))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[60, 80], gamma=0.1)
