"""CPC v2, ResNet-50, patches of 80 px, four directions, layer norm, ImageNet-1k (Henaff et al., ICML 2020).

bash tools/dist_train.sh configs/cpc/r50_v2.py 32
Published: 63.8 % linear top-1. Not measured by us.
Batch norm would tell a patch which others are in its batch. Steps, optimizer and length are those of r50_v1.py: the sources
read do not give them.
"""

_base_ = 'r50_v1.py'

model = dict(
    backbone=dict(norm_layer='groupnorm1'),  # one mean and variance per image over channels and positions
    neck=dict(norm='LN'),
    head=dict(steps=5, directions=('down', 'up', 'right', 'left'), grid=(6, 6)),
)
train_dataloader = dict(
    dataset=dict(
        views=dict(
            patches=dict(
                count=36,
                size=80,
                grid=(6, 6),
                stride=36,
                parent=dict(size=260),
                ops=dict(part=None, drop=dict(type='ColorDrop', keep=1), flip=dict(type='RandomFlip', probability=0.5)),
            ),
        ),
    ),
)
