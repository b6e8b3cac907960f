"""ImageNet-1k, the original image, 2 crops of 160 and 5 of 3 x 3 patches of 96: the augmentation of OBoW in SFRIK.

Gidaris et al., CVPR 2021; ImageNetOBoWTrainTransform of Zheng et al., ICLR 2023. Positions: 0 original (no colour
change), 1-2 crops, 3-7 patches of one shared parent. Flips come last, as published.
For the 20 % subset: train_dataloader.dataset.source.images_per_class=260, evaluation.train.images_per_class=260.
"""

_base_ = 'imagenet.py'


def crop(low, high):
    return dict(type='RandomResizedCrop', scale=(low, high), ratio=(3 / 4, 4 / 3), interpolation='bilinear')


def ops(**blur):
    return dict(
        jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, probability=0.8),
        gray=dict(type='RandomGrayscale', probability=0.2),
        **blur,
        flip=dict(type='RandomFlip', probability=0.5),
    )


train_dataloader = dict(
    dataset=dict(
        views=dict(
            original=dict(
                count=1,
                size=224,
                crop=dict(type='CenterCrop', resize=256, interpolation='bilinear'),
                ops=dict(flip=dict(type='RandomFlip', probability=0.5)),
            ),
            crops=dict(
                count=2,
                size=160,
                crop=crop(0.08, 0.6),
                ops=ops(blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.5)),
            ),
            patches=dict(
                count=5, size=96, grid=(3, 3), jitter=24, parent=dict(size=256, crop=crop(0.6, 1.0), ops=ops())
            ),
        ),
    ),
)
