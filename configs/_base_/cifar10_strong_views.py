"""CIFAR-10, two 32 px views with strong colour jitter and blur in half of both: solo-learn's symmetric recipe.

da Costa et al., JMLR 2022.
"""

_base_ = 'cifar10_two_views.py'

_ops = dict(
    jitter=dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.5),
    solarize=dict(probability=0.0),
)
train_dataloader = dict(dataset=dict(views=dict(first=dict(ops=_ops), second=dict(ops=_ops))))
del _ops
