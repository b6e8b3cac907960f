"""SFRIK, ResNet-18, L = 3, q = 8192, 20 % of ImageNet (Zheng et al., ICLR 2023).

bash tools/dist_train.sh configs/sfrik/r18_in20_L3_q8192.py 4
Published: 47.5 % linear top-1 after 100 epochs (4 x 512 images). Not measured by us.
The incomplete last batch of an epoch is left out (126 steps); theirs is kept (127).
"""

_base_ = ['../_base_/imagenet20_two_views.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 8192)),
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0)),
        alignment_weight=4000.0,  # 0.488 per ||u - v||^2
        reduction='element',
    ),
)
optim_wrapper = dict(precision='float16', optimizer=dict(lr=1.2))  # x 2048 / 256 = 9.6
