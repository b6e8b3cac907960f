"""SFRIK, ResNet-18, L = 3, q = 8192, STL-10's 100 000 unlabeled images at 64 px (Zheng et al., ICLR 2023).

mmkernel train configs/sfrik/stl10_L3_q8192.py        (batch 2048 on one GPU)
No published result in the sources read. Not measured by us.
The 7x7 stem stays at 64 px, as published.
"""

_base_ = ['../_base_/stl10_two_views.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 8192)),
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0)),
        alignment_weight=4000.0,
        reduction='element',
    ),
)
optim_wrapper = dict(precision='bfloat16', optimizer=dict(lr=1.2))
