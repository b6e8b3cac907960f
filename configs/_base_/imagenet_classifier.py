"""ImageNet-1k for classifiers: one crop of 224 and a flip; resize 256 and the middle 224 for testing. Batch 256 = 8 x 32."""

_base_ = ['imagenet.py', 'classifier.py']

train_dataloader = dict(
    batch_size=32,
    drop_last=False,
    dataset=dict(
        views=dict(
            only=dict(
                count=1,
                size=224,
                crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bilinear'),
                ops=dict(flip=dict(type='RandomFlip', probability=0.5)),
            )
        )
    ),
)
evaluation = dict(transform=dict(interpolation='bilinear'), metric=None)  # epochs are chosen by top-1
