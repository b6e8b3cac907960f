"""ImageNet-1k, two 224 px views from at least a fifth of the image: the augmentation of MoCo v2 and SimSiam.

Chen et al., 2020; Chen & He, CVPR 2021: jitter .4 .4 .4 .1, blur in half of both. (There flips come last; here first.)
"""

_base_ = 'imagenet_two_views.py'

_view = dict(
    crop=dict(scale=(0.2, 1.0), interpolation='bilinear'),
    ops=dict(
        jitter=dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
        blur=dict(probability=0.5),
        solarize=dict(probability=0.0),
    ),
)
train_dataloader = dict(batch_size=32, dataset=dict(views=dict(first=_view, second=_view)))
del _view
