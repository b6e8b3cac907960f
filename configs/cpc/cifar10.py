"""CPC, ResNet-18 with a small stem, 7 x 7 patches of 8 px, four directions, CIFAR-10 (Henaff et al., ICML 2020). A recipe of ours.

mmkernel train configs/cpc/cifar10.py
No published result. Not measured by us.
Trained on patches, evaluated on whole images: the backbone is convolutions and an average over positions.
"""

_base_ = ['../_base_/cifar10_patches.py', '../_base_/sgd_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True, norm_layer='groupnorm1'),
    neck=dict(type='MLPNeck', dims=(256,)),
    head=dict(
        type='PredictiveCodingHead',
        steps=3,
        directions=('down', 'up', 'right', 'left'),
        grid=(7, 7),
        context=dict(dim=128, blocks=3),
    ),
    batching='all',
)
train_dataloader = dict(batch_size=64)  # 3136 candidates
optim_wrapper = dict(precision='bfloat16', optimizer=dict(_delete_=True, type='Adam', lr=1e-3))
