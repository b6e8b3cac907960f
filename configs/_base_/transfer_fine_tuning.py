"""Fine-tuning on a smaller set: 20 000 steps of 256, Nesterov, RandomResizedCrop and flip (Kornblith et al., CVPR 2019).

The protocol tries 7 rates in [1e-4, 1e-1] with 7 decays in [1e-6, 1e-3] and none (divided by the rate) on held-out images;
the figures here are one of them. For others: mmkernel classify ... --try optim_wrapper.optimizer.lr=1e-3,1e-2
"""

_base_ = 'imagenet_classifier.py'

model = dict(frozen=False)
train_dataloader = dict(batch_size=256, dataset=dict(views=dict(only=dict(crop=dict(interpolation='bicubic')))))
evaluation = dict(transform=dict(interpolation='bicubic'))  # the middle 224 of 256: Chen et al., ICML 2020, B.8.1
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=1e-4, nesterov=True))
default_hooks = dict(accuracy=dict(interval=5))
