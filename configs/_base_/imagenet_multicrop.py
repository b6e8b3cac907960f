"""ImageNet-1k, multi-crop 2 x 224 + 6 x 96: the augmentation of SwAV as in the SFRIK code (std .229, not SwAV's .228).

Caron et al., NeurIPS 2020; ImageNetSwAVTrainTransform of Zheng et al., ICLR 2023. Positions 0-1 are large, 2-7 small.
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
            large=dict(
                count=2,
                size=224,
                crop=dict(type='RandomResizedCrop', scale=(0.14, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bilinear'),
                ops=dict(
                    flip=dict(type='RandomFlip', probability=0.5),
                    jitter=dict(
                        type='ColorJitter', brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8
                    ),
                    gray=dict(type='RandomGrayscale', probability=0.2),
                    blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.5),
                ),
            ),
            small=dict(
                count=6,
                size=96,
                crop=dict(type='RandomResizedCrop', scale=(0.05, 0.14), ratio=(3 / 4, 4 / 3), interpolation='bilinear'),
                ops=dict(
                    flip=dict(type='RandomFlip', probability=0.5),
                    jitter=dict(
                        type='ColorJitter', brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8
                    ),
                    gray=dict(type='RandomGrayscale', probability=0.2),
                    blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.5),
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
