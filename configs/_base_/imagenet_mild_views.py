"""ImageNet-1k, two 224 px views from at least a fifth of the image, grey before jitter, no blur: MoCo v1's augmentation.

He et al., CVPR 2020.
"""

_base_ = 'imagenet_two_views.py'

_view = dict(
    crop=dict(scale=(0.2, 1.0), interpolation='bilinear'),
    ops=dict(
        _delete_=True,
        gray=dict(type='RandomGrayscale', probability=0.2),
        jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, probability=1.0),
        flip=dict(type='RandomFlip', probability=0.5),
    ),
)
train_dataloader = dict(batch_size=32, dataset=dict(views=dict(first=_view, second=_view)))
del _view
