"""ImageNet-100: 100 classes of ImageNet, Tian et al., ECCV 2020. Views as for the whole set."""

_base_ = 'imagenet_two_views.py'

train_dataloader = dict(dataset=dict(source=dict(type='ImageNet100')))
evaluation = dict(train=dict(type='ImageNet100'), test=dict(type='ImageNet100'))
