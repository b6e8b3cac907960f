"""SFRIK, ResNet-50, L = 3, q = 32 768, ImageNet-1k, 2 crops of 224 and 6 of 96 (Zheng et al., ICLR 2023).

bash tools/dist_train.sh configs/sfrik/r50_L3_q32768_crops_2p6.py 8
No published result for this setting in the sources read. Not run here.
Every view is aligned to the two large ones; the kernel runs over the large ones.
"""

_base_ = ['../_base_/imagenet_multicrop.py', '../_base_/lars_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 32768)),
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0)),
        alignment_weight=40000.0,
        reduction='element',
        regularize='target',
    ),
    target_views=(0, 1),
    batching='size',
)
optim_wrapper = dict(precision='float16', optimizer=dict(lr=0.4))
