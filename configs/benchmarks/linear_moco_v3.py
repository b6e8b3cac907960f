"""Linear classifier of MoCo v3 (Chen, Xie & He, ICCV 2021): 0.1 x 1024 / 256, 90 epochs. ViTs: linear_moco_v3_vit.py.

torchrun --nproc_per_node 8 -m mmkernel classify configs/moco/r50_v3.py CHECKPOINT \
    --protocol configs/benchmarks/linear_moco_v3.py
Published: 74.6 % top-1 after 1000 epochs of pretraining (68.9 after 100, 72.8 after 300). Not measured by us.
"""

_base_ = '../_base_/imagenet_classifier.py'

train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=90)
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=0.0))
lr_scaling = 'linear'
