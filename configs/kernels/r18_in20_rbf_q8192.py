"""Alignment and uniformity, ResNet-18, q = 8192, 20 % of ImageNet (baseline of Zheng et al., ICLR 2023).

bash tools/dist_train.sh configs/kernels/r18_in20_rbf_q8192.py 4
Published: 46.8 % linear top-1 after 100 epochs (their run). Not measured by us.
The incomplete last batch of an epoch is left out (126 steps); theirs is kept (127).
"""

_base_ = ['../_base_/imagenet20_two_views.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 8192)),
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='RBFKernel', scale=2.5),
        statistic='U',
        log=True,
        alignment_weight=3000.0,  # 0.366 per ||u - v||^2
        reduction='element',
    ),
)
optim_wrapper = dict(precision='float16', optimizer=dict(lr=1.0))  # x 2048 / 256 = 8
