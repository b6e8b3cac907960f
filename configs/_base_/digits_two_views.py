"""scikit-learn's digits at 16 px, one grey channel, two views: small affine maps and crops, contrast, blur, noise.

No flips: a mirrored digit is another sign. Any strength can be overridden by its key; an operation set to None is left
out. Nothing to download.
"""

_base_ = 'loader.py'

train_dataloader = dict(
    batch_size=256,
    num_workers=2,
    pin_memory=False,
    dataset=dict(
        source=dict(type='Digits', split='train', size=16),
        exact=True,  # every published figure was measured with Pillow's pixels
        views=dict(
            both=dict(
                count=2,
                size=16,
                crop=dict(type='RandomResizedCrop', scale=(0.6, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bilinear'),
                ops=dict(
                    affine=dict(
                        type='RandomAffine',
                        degrees=15.0,
                        translate=0.1,
                        scale=(0.85, 1.15),
                        shear=10.0,
                        probability=1.0,
                    ),
                    jitter=dict(type='ColorJitter', brightness=0.3, contrast=0.4, probability=0.8),
                    blur=dict(type='GaussianBlur', sigma=(0.1, 0.8), probability=0.3),
                    noise=dict(type='GaussianNoise', sigma=(0.0, 12.0), probability=0.5),
                    erase=dict(type='RandomErasing', scale=(0.02, 0.1), ratio=(0.5, 2.0), probability=0.0),
                ),
            ),
        ),
    ),
)

data_preprocessor = dict(type='ViewPreprocessor', mean=[0.31], std=[0.348])

evaluation = dict(
    train=dict(type='Digits', split='train', size=16),
    test=dict(type='Digits', split='test', size=16),
    transform=dict(type='CenterView', resize=None, crop=None, interpolation='bicubic'),
    batch_size=512,
    num_workers=0,
)
