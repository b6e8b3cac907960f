"""1 % of the labels as SimCLR fine-tunes (Chen et al., ICML 2020): Nesterov, 0.05 x 4096 / 256 for all weights, 60 epochs.

No warm-up, no decay, crops and flips only, logits from zero. The paper does not name a schedule; the cosine per step is that
of the released code. The second version of the method fine-tunes from the first layer of its projector, which this
classifier has not.

torchrun --nproc_per_node 8 -m mmkernel classify configs/simclr/r50.py CHECKPOINT \
    --protocol configs/benchmarks/semi_simclr_1percent.py
Published: 48.3 % top-1, 75.5 % top-5 (1000 epochs of pretraining). Not measured by us.
"""

_base_ = '../_base_/imagenet_semi.py'

model = dict(head_std=0.0)
train_dataloader = dict(batch_size=512, dataset=dict(views=dict(only=dict(crop=dict(interpolation='bicubic')))))
evaluation = dict(transform=dict(interpolation='bicubic'))
train_cfg = dict(max_epochs=60)
optim_wrapper = dict(optimizer=dict(lr=0.05, nesterov=True))
lr_scaling = 'linear'
param_scheduler = dict(_delete_=True, type='WarmupCosineLR', warmup_epochs=0, end_factor=0.0)  # per step
