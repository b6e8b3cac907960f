"""Imagenette, four 128 px views: LeJEPA's minimal example, with its evaluation at 128 px. Data: data/imagenette2-160.

Balestriero & LeCun, arXiv 2511.08544, 2025. Their solarization acts half the times it is drawn: 0.2 x 0.5.
"""

_base_ = 'imagenet.py'

_source = dict(type='Imagenette', root='data/imagenette2-160')
train_dataloader = dict(
    num_workers=8,
    dataset=dict(
        source=_source,
        views=dict(
            crops=dict(
                count=4,
                size=128,
                crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bilinear'),
                ops=dict(
                    jitter=dict(
                        type='ColorJitter', brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8
                    ),
                    gray=dict(type='RandomGrayscale', probability=0.2),
                    blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.5),
                    solarize=dict(type='Solarize', threshold=128, probability=0.1),
                    flip=dict(type='RandomFlip', probability=0.5),
                ),
            )
        ),
    ),
)
evaluation = dict(
    train=_source, test=_source, transform=dict(resize=128, crop=128, interpolation='bilinear'), num_workers=8
)
del _source
