"""ImageNet-1k in data/imagenet/{train,val}/<wnid>/*.JPEG: where images come from, their statistics, how they are judged."""

_base_ = 'loader.py'

train_dataloader = dict(dataset=dict(source=dict(type='ImageNet', root='data/imagenet', split='train')))
data_preprocessor = dict(type='ViewPreprocessor', mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
evaluation = dict(
    train=dict(type='ImageNet', root='data/imagenet', split='train'),
    test=dict(type='ImageNet', root='data/imagenet', split='val'),
    transform=dict(type='CenterView', resize=256, crop=224, interpolation='bicubic'),
    batch_size=256,
    num_workers=10,
)
