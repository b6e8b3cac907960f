"""ImageNet-1k, 4 x 224 + 6 x 96 px with the same colours: VISReg's views. Positions 0-3 are global, 4-9 local.

Wu, Balestriero & Levine, arXiv 2606.02572, 2026. Their solarization acts half the times it is drawn: 0.2 x 0.5.
Their views on the CPU, which trained the released encoders, do not read the hue of their config (.05) but keep .1.
"""

_base_ = 'imagenet_2p6_views.py'

_view = dict(crop=dict(interpolation='bicubic'), ops=dict(solarize=dict(probability=0.1)))
train_dataloader = dict(dataset=dict(views=dict(large=dict(count=4, **_view), small=dict(size=96, **_view))))
del _view
