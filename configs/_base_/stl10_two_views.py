"""STL-10, the 100 000 unlabeled images, two 64 px views: the augmentation of AUH as in the SFRIK code (bicubic).

Wang and Isola, ICML 2020; STL10AUHTrainTransform of Zheng et al., ICLR 2023. Batch 2048 on one GPU. Evaluation looks at
the native 96 px. Data: data/stl10/stl10_binary/*.bin
"""

_base_ = 'loader.py'

train_dataloader = dict(
    batch_size=2048,
    num_workers=10,
    dataset=dict(
        source=dict(type='STL10', root='data/stl10', split='unlabeled'),
        views=dict(
            both=dict(
                count=2,
                size=64,
                crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bicubic'),
                ops=dict(
                    flip=dict(type='RandomFlip', probability=0.5),
                    jitter=dict(
                        type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, probability=1.0
                    ),
                    gray=dict(type='RandomGrayscale', probability=0.2),
                ),
            ),
        ),
    ),
)

data_preprocessor = dict(type='ViewPreprocessor', mean=[0.441, 0.428, 0.387], std=[0.268, 0.261, 0.269])

evaluation = dict(
    train=dict(type='STL10', root='data/stl10', split='train'),
    test=dict(type='STL10', root='data/stl10', split='test'),
    transform=dict(type='CenterView', resize=None, crop=None, interpolation='bicubic'),
    batch_size=256,
    num_workers=4,
)
