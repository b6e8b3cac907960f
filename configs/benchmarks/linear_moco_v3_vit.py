"""Linear classifier of MoCo v3 for vision transformers (Chen, Xie & He, ICCV 2021): 3 x 1024 / 256 = 12, 90 epochs.

torchrun --nproc_per_node 8 -m mmkernel classify configs/moco/vit_base_v3.py CHECKPOINT \
    --protocol configs/benchmarks/linear_moco_v3_vit.py
Published: 76.7 % top-1 with ViT-B/16, 73.2 % with ViT-S/16, after 300 epochs of pretraining. Not measured by us.
"""

_base_ = 'linear_moco_v3.py'

optim_wrapper = dict(optimizer=dict(lr=3.0))
