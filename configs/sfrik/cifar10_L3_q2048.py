"""SFRIK, ResNet-18 with a small stem, L = 3, q = 2048, CIFAR-10. A recipe of ours: the paper has none.

mmkernel train configs/sfrik/cifar10_L3_q2048.py
No published result. Not measured by us.
"""

_base_ = ['../_base_/cifar10_two_views.py', '../_base_/lars_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True, zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 2048)),
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0)),
        alignment_weight=1000.0,  # 0.488 per ||u - v||^2, as on 20 % of ImageNet
        reduction='element',
    ),
)
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(precision='bfloat16', optimizer=dict(lr=1.2))
