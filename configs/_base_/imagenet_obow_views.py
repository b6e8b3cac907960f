"""ImageNet-1k, the original image, 2 crops of 160 and 5 of 3 x 3 patches of 96: the augmentation of OBoW in SFRIK.

Gidaris et al., CVPR 2021; ImageNetOBoWTrainTransform of Zheng et al., ICLR 2023. Positions: 0 original (no colour
change), 1-2 crops, 3-7 patches of one shared parent. Flips come last, as published.
For the 20 % subset: train_dataloader.dataset.source.images_per_class=260, evaluation.train.images_per_class=260.
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
            original=dict(
                count=1,
                size=224,
                crop=dict(type='CenterCrop', resize=256, interpolation='bilinear'),
                ops=dict(flip=dict(type='RandomFlip', probability=0.5)),
            ),
            crops=dict(
                count=2,
                size=160,
                crop=dict(type='RandomResizedCrop', scale=(0.08, 0.6), ratio=(3 / 4, 4 / 3), interpolation='bilinear'),
                ops=dict(
                    jitter=dict(
                        type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, probability=0.8
                    ),
                    gray=dict(type='RandomGrayscale', probability=0.2),
                    blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.5),
                    flip=dict(type='RandomFlip', probability=0.5),
                ),
            ),
            patches=dict(
                count=5,
                size=96,
                grid=(3, 3),
                jitter=24,
                parent=dict(
                    size=256,
                    crop=dict(
                        type='RandomResizedCrop', scale=(0.6, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bilinear'
                    ),
                    ops=dict(
                        jitter=dict(
                            type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, probability=0.8
                        ),
                        gray=dict(type='RandomGrayscale', probability=0.2),
                        flip=dict(type='RandomFlip', probability=0.5),
                    ),
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
