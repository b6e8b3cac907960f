"""The digits recipe on a 3 x 3 grid of 8 px patches, stride 4, of one 16 px crop. Order: row by row."""

_base_ = 'digits_recipe.py'

train_dataloader = dict(
    dataset=dict(
        views=dict(
            both=None,
            patches=dict(
                count=9,
                size=8,
                grid=(3, 3),
                stride=4,
                parent=dict(
                    size=16,
                    crop=dict(
                        type='RandomResizedCrop', scale=(0.6, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bilinear'
                    ),
                    ops=dict(
                        affine=dict(
                            type='RandomAffine',
                            degrees=15.0,
                            translate=0.1,
                            scale=(0.85, 1.15),
                            shear=10.0,
                            probability=1.0,
                        ),
                    ),
                ),
                ops=dict(
                    jitter=dict(type='ColorJitter', brightness=0.3, contrast=0.4, probability=0.8),
                    noise=dict(type='GaussianNoise', sigma=(0.0, 12.0), probability=0.5),
                ),
            ),
        ),
    ),
)
