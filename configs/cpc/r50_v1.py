"""CPC, ResNet-50, 7 x 7 patches, five rows predicted downwards, ImageNet-1k (van den Oord et al., 2018).

bash tools/dist_train.sh configs/cpc/r50_v1.py 32
Published: 48.7 % linear top-1 of the third block of a ResNet-101 v2. Not measured by us.
The paper's encoder is another: here all four blocks of a ResNet-50, averaged, and a linear map to 1024 dimensions.
Trained on patches, evaluated on whole images: the backbone is convolutions and an average over positions.
"""

_base_ = ['../_base_/imagenet_patches.py', '../_base_/sgd_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50'),
    neck=dict(type='MLPNeck', dims=(1024,)),
    head=dict(type='PredictiveCodingHead', steps=5, directions=('down',), grid=(7, 7), context=dict(dim=256, blocks=5)),
    batching='all',
)
train_dataloader = dict(batch_size=16)  # x 32 processes
optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=2e-4))
lr_scaling = None
param_scheduler = dict(end_factor=1.0)  # constant
