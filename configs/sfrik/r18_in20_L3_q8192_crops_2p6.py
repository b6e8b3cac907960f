"""SFRIK, ResNet-18, L = 3, q = 8192, 20 % of ImageNet, 2 crops of 224 and 6 of 96 (Zheng et al., ICLR 2023).

bash tools/dist_train.sh configs/sfrik/r18_in20_L3_q8192_crops_2p6.py 4
No published result in the sources read; the recipe is that of the authors' README. Not measured by us.
Every view is aligned to the two large ones; the kernel runs over the large ones.
"""

_base_ = ['../_base_/imagenet_multicrop.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 8192)),
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0)),
        alignment_weight=4000.0,  # 0.488 per ||u - v||^2
        reduction='element',
        regularize='target',
    ),
    target_views=(0, 1),
    batching='size',
)
train_dataloader = dict(batch_size=512, dataset=dict(source=dict(images_per_class=260)))
evaluation = dict(train=dict(images_per_class=260))
optim_wrapper = dict(precision='float16', optimizer=dict(lr=1.2))  # x 2048 / 256 = 9.6
