"""CIFAR-10, 7 x 7 patches of 8 px, stride 4, of a 32 px crop, colours dropped from each alone. Order: row by row."""

_base_ = 'cifar10_two_views.py'

train_dataloader = dict(
    dataset=dict(
        views=dict(
            first=None,
            second=None,
            patches=dict(
                count=49,
                size=8,
                grid=(7, 7),
                stride=4,
                parent=dict(
                    size=32,
                    crop=dict(
                        type='RandomResizedCrop', scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bicubic'
                    ),
                    ops=dict(flip=dict(type='RandomFlip', probability=0.5)),
                ),
                ops=dict(
                    jitter=dict(
                        type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8
                    ),
                    drop=dict(type='ColorDrop', keep=1, probability=0.5),
                ),
            ),
        ),
    ),
)
