"""ImageNet-1k, 2 x 224 + 6 x 98 px with the same colours: LeJEPA's views. Positions 0-1 are global, 2-7 local.

Balestriero & LeCun, arXiv 2511.08544, 2025; all is from their README, but the interpolation: torchvision's bilinear.
98 px are 7 patches of 14 px; for patches of 16 px: train_dataloader.dataset.views.small.size=96.
"""

_base_ = 'imagenet.py'


def crops(count, size, scale):
    return dict(
        count=count,
        size=size,
        crop=dict(type='RandomResizedCrop', scale=scale, ratio=(3 / 4, 4 / 3), interpolation='bilinear'),
        ops=dict(
            flip=dict(type='RandomFlip', probability=0.5),
            jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
            gray=dict(type='RandomGrayscale', probability=0.2),
            blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.5),
            solarize=dict(type='Solarize', threshold=128, probability=0.2),
        ),
    )


train_dataloader = dict(dataset=dict(views=dict(large=crops(2, 224, (0.3, 1.0)), small=crops(6, 98, (0.05, 0.3)))))
