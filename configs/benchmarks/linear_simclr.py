"""Linear classifier of SimCLR (Chen et al., ICML 2020): Nesterov, 0.1 x 4096 / 256, 90 epochs, logits from zero.

torchrun --nproc_per_node 8 -m mmkernel classify configs/simclr/r50.py CHECKPOINT \
    --protocol configs/benchmarks/linear_simclr.py
Published: 69.3 % top-1 after 1000 epochs of pretraining. Not measured by us.
"""

_base_ = '../_base_/imagenet_classifier.py'

model = dict(head_std=0.0)
train_dataloader = dict(batch_size=512, dataset=dict(views=dict(only=dict(crop=dict(interpolation='bicubic')))))
evaluation = dict(transform=dict(interpolation='bicubic'))
train_cfg = dict(max_epochs=90)
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=1e-6, nesterov=True))
lr_scaling = 'linear'
param_scheduler = dict(_delete_=True, type='WarmupCosineLR', warmup_epochs=0, end_factor=0.0)  # per step
