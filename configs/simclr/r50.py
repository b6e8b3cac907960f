"""SimCLR, ResNet-50, q = 128, ImageNet-1k (Chen et al., ICML 2020).

bash tools/dist_train.sh configs/simclr/r50.py 8
Published: 69.3 % linear top-1 after 1000 epochs (batch 4096). Not measured by us.
Images are standardised, as our loaders do; theirs are in [0, 1]. Brightness is a factor, as in their released code; in the
paper's run it was an offset. The decay is the paper's; the command in their README has 1e-4.
"""

_base_ = ['../_base_/imagenet_strong_views.py', '../_base_/lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(2048, 128), bias=False, last_norm='ScaledBN'),
    head=dict(type='InfoNCEHead', temperature=0.1, weight=2.0, negatives='views'),  # the sum of the two directions
    batching='all',
)
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(precision='float16', optimizer=dict(lr=0.3))  # x 4096 / 256 = 4.8
