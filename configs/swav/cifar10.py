"""SwAV, ResNet-18 with a small stem, 3000 prototypes and a queue, CIFAR-10 (Caron et al., NeurIPS 2020), solo-learn's recipe.

mmkernel train configs/swav/cifar10.py
Published: 89.2 % top-1 of a classifier trained online, 1000 epochs (da Costa et al., JMLR 2022). Not measured by us.
"""

_base_ = ['../_base_/cifar10_strong_views.py', '../_base_/cifar_lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(2048, 128), last_bias=True),
    head=dict(type='SinkhornCodesHead', num_prototypes=3000, queue_length=3840),
)
optim_wrapper = dict(optimizer=dict(lr=0.6, weight_decay=1e-6))
default_hooks = dict(
    freeze=dict(type='FreezeHook', layers={'head.prototypes': dict(epochs=2)}),
    queue=dict(type='QueueHook', start_epoch=50),
)
