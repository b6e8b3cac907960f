"""SFRIK, ViT-S/16 with four registers, L = 3, q = 8192, crops 2 x 224 + 6 x 96, ImageNet-1k. A recipe of ours.

bash tools/dist_train.sh configs/sfrik/vit_small_multicrop.py 8
No published result: Zheng et al., ICLR 2023, train ResNets; objective and crops are those of r18_in20_L3_q8192_crops_2p6.py,
the optimizer is that of the vision transformers of Chen, Xie & He, ICCV 2021. Not measured by us.
To go on from a file of timm: --cfg-options load_from=vit.safetensors optim_wrapper.layer_decay=0.75
"""

_base_ = ['../_base_/imagenet_multicrop.py', '../_base_/adamw_300e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='vit_small_patch16_224', reg_tokens=4, drop_path_rate=0.1),
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
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(precision='bfloat16', optimizer=dict(lr=1.5e-4))  # x 1024 / 256 = 6e-4
