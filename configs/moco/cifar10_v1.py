"""MoCo v1, ResNet-18 with a small stem, CIFAR-10 (He et al., CVPR 2020): a linear projector, one direction, T = 0.07.

mmkernel train configs/moco/cifar10_v1.py
No published result. Not measured by us. Otherwise the recipe of cifar10_v2.py, with the batch-norm shuffling of 8 processes.
"""

_base_ = 'cifar10_v2.py'

model = dict(
    neck=dict(dims=(128,)),
    target=dict(shuffle_bn=True, sub_batches=8),
    head=dict(temperature=0.07, queue=dict(views=1)),
    online_views=(0,),
    target_views=(1,),
)
default_hooks = dict(momentum=dict(momentum=0.99, schedule='constant'))
