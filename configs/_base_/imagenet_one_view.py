"""ImageNet-1k, one 224 px view: crop and flip, bilinear. Caron et al., ECCV 2018."""

_base_ = 'imagenet.py'

train_dataloader = dict(
    dataset=dict(
        views=dict(
            only=dict(
                count=1,
                size=224,
                crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bilinear'),
                ops=dict(flip=dict(type='RandomFlip', probability=0.5)),
            ),
        ),
    ),
)
