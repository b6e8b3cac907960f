"""ImageNet-1k, two 224 px views: the augmentation of VICReg, Barlow Twins and SFRIK.

Zbontar et al., ICML 2021; Bardes et al., ICLR 2022; Zheng et al., ICLR 2023. Batch 2048 = 8 processes x 256.
Data: data/imagenet/{train,val}/<wnid>/*.JPEG
"""

train_dataloader = dict(
    batch_size=256,
    num_workers=10,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ViewDataset',
        source=dict(type='ImageNet', root='data/imagenet', split='train'),
        views=dict(
            first=dict(
                count=1,
                size=224,
                crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bicubic'),
                ops=dict(
                    flip=dict(type='RandomFlip', probability=0.5),
                    jitter=dict(
                        type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8
                    ),
                    gray=dict(type='RandomGrayscale', probability=0.2),
                    blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=1.0),
                    solarize=dict(type='Solarize', threshold=128, probability=0.0),
                ),
            ),
            second=dict(
                count=1,
                size=224,
                crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bicubic'),
                ops=dict(
                    flip=dict(type='RandomFlip', probability=0.5),
                    jitter=dict(
                        type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8
                    ),
                    gray=dict(type='RandomGrayscale', probability=0.2),
                    blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.1),
                    solarize=dict(type='Solarize', threshold=128, probability=0.2),
                ),
            ),
        ),
    ),
)

data_preprocessor = dict(
    type='ViewPreprocessor', mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], channels_last=False
)

evaluation = dict(
    train=dict(type='ImageNet', root='data/imagenet', split='train'),
    test=dict(type='ImageNet', root='data/imagenet', split='val'),
    transform=dict(type='CenterView', resize=256, crop=224, interpolation='bicubic'),
    batch_size=256,
    num_workers=10,
)
