"""Linear classifier of BYOL (Grill et al., NeurIPS 2020): Nesterov, 0.2 x 1024 / 256, 80 epochs.

The paper tries the rates 0.4, 0.3, 0.2, 0.1 and 0.05 on 10 000 held-out training images.

torchrun --nproc_per_node 8 -m mmkernel classify configs/byol/r50.py CHECKPOINT \
    --protocol configs/benchmarks/linear_byol.py
Published: 74.3 % top-1 after 1000 epochs of pretraining. Not measured by us.
"""

_base_ = '../_base_/imagenet_classifier.py'

model = dict(head_std=2048**-0.5)  # 1 / sqrt(width of the features); theirs cuts the tails off
train_dataloader = dict(batch_size=128, dataset=dict(views=dict(only=dict(crop=dict(interpolation='bicubic')))))
evaluation = dict(transform=dict(interpolation='bicubic'))
train_cfg = dict(max_epochs=80)
optim_wrapper = dict(optimizer=dict(lr=0.2, weight_decay=0.0, nesterov=True))
lr_scaling = 'linear'
param_scheduler = dict(_delete_=True, type='WarmupCosineLR', warmup_epochs=0, end_factor=0.0)  # per step
