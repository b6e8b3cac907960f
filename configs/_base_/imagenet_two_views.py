"""ImageNet-1k, two 224 px views: the augmentation of VICReg, Barlow Twins and SFRIK.

Zbontar et al., ICML 2021; Bardes et al., ICLR 2022; Zheng et al., ICLR 2023. Batch 2048 = 8 processes x 256: 625
steps an epoch, the incomplete last batch left out (theirs keep it, 626).
"""

_base_ = 'imagenet.py'


def view(blur, solarize):
    return dict(
        count=1,
        size=224,
        crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bicubic'),
        ops=dict(
            flip=dict(type='RandomFlip', probability=0.5),
            jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
            gray=dict(type='RandomGrayscale', probability=0.2),
            blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=blur),
            solarize=dict(type='Solarize', threshold=128, probability=solarize),
        ),
    )


train_dataloader = dict(dataset=dict(views=dict(first=view(1.0, 0.0), second=view(0.1, 0.2))))
