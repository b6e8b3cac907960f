"""ImageNet-1k, multi-crop 2 x 224 + 6 x 96: the augmentation of SwAV as in the SFRIK code (std .229, not SwAV's .228).

Caron et al., NeurIPS 2020; ImageNetSwAVTrainTransform of Zheng et al., ICLR 2023. Positions 0-1 are large, 2-7 small.
For the 20 % subset: train_dataloader.dataset.source.images_per_class=260, evaluation.train.images_per_class=260.
"""

_base_ = 'imagenet.py'


def crops(count, size, scale):
    return dict(
        count=count,
        size=size,
        crop=dict(type='RandomResizedCrop', scale=scale, ratio=(3 / 4, 4 / 3), interpolation='bilinear'),
        ops=dict(
            flip=dict(type='RandomFlip', probability=0.5),
            jitter=dict(type='ColorJitter', brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8),
            gray=dict(type='RandomGrayscale', probability=0.2),
            blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.5),
        ),
    )


train_dataloader = dict(dataset=dict(views=dict(large=crops(2, 224, (0.14, 1.0)), small=crops(6, 96, (0.05, 0.14)))))
