"""SFRIK, ResNet-18 with a small stem, L = 3, q = 2048, CIFAR-10 in 30 epochs (Zheng et al., ICLR 2023). A recipe of ours.

mmkernel train configs/sfrik/cifar10_speedrun.py
No published result. Not measured by us on a GPU; goal on one H100: 17 000 images/s. At the end kNN with all images.
"""

_base_ = 'cifar10_L3_q2048.py'

train_cfg = dict(max_epochs=30)
param_scheduler = dict(warmup_epochs=3)
train_dataloader = dict(num_workers=12, prefetch_factor=4)
compile = True
default_hooks = dict(
    knn=dict(type='KNNMonitorHook', interval=30, max_images=None),
    checkpoint=dict(interval=30),
)
