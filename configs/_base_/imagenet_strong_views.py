"""ImageNet-1k, two 224 px views with strong colour jitter and blur in half of both: SimCLR as in the SFRIK code.

Chen et al., ICML 2020; ImageNetSimCLRTrainTransform of Zheng et al., ICLR 2023.
"""

_base_ = 'imagenet_two_views.py'

_view = dict(
    jitter=dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    blur=dict(probability=0.5),
    solarize=dict(probability=0.0),
)
train_dataloader = dict(dataset=dict(views=dict(first=dict(ops=_view), second=dict(ops=_view))))
del _view
