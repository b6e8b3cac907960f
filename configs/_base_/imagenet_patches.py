"""ImageNet-1k, 7 x 7 patches of 64 px, stride 32, of a 256 px crop; of each a 60 px part, padded back. Order: row by row.

van den Oord et al., 2018 (CPC). The resizing before the crop and the colour of patches are as in OBoW's parent crop.
"""

_base_ = 'imagenet.py'

train_dataloader = dict(
    dataset=dict(
        views=dict(
            patches=dict(
                count=49,
                size=64,
                grid=(7, 7),
                stride=32,
                parent=dict(
                    size=256,
                    crop=dict(
                        type='RandomResizedCrop', scale=(0.6, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bilinear'
                    ),
                    ops=dict(flip=dict(type='RandomFlip', probability=0.5)),
                ),
                ops=dict(
                    part=dict(type='PaddedCrop', size=60),
                    gray=dict(type='RandomGrayscale', probability=0.0),
                ),
            ),
        ),
    ),
)
