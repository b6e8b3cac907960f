"""CIFAR-10, two views, jitter .4 .4 .4 .1, half of both blurred: solo-learn's recipe for MoCo v2+ and SimSiam.

da Costa et al., JMLR 2022.
"""

_base_ = 'cifar10_two_views.py'

_ops = dict(
    jitter=dict(saturation=0.4),
    blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.5),
    solarize=dict(probability=0.0),
)
train_dataloader = dict(dataset=dict(views=dict(first=dict(ops=_ops), second=dict(ops=_ops))))
del _ops
