"""VICReg, ResNet-18 with a small stem, q = 2048, CIFAR-10 in 30 epochs (Bardes et al., ICLR 2022); solo-learn's recipe, shorter.

mmkernel train configs/vicreg/cifar10_speedrun.py
No published result. Not measured by us on a GPU; goal on one H100: 17 000 images/s. At the end kNN with all images.
"""

_base_ = 'cifar10.py'

train_cfg = dict(max_epochs=30)
param_scheduler = dict(warmup_epochs=3)
train_dataloader = dict(batch_size=512, num_workers=12, prefetch_factor=4)
optim_wrapper = dict(precision='bfloat16')
compile = True
default_hooks = dict(
    knn=dict(type='KNNMonitorHook', interval=30, max_images=None),
    checkpoint=dict(interval=30),
)
