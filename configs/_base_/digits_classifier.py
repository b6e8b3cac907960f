"""scikit-learn's digits for classifiers: one view of the pretraining's augmentation, batch 128."""

_base_ = ['digits_two_views.py', 'classifier.py']

model = dict(
    backbone=dict(
        model_name='resnet18', small_images=True, in_channels=1, layers=(1, 1, 1, 1), channels=(12, 24, 48, 96)
    ),
    num_classes=10,
)
train_dataloader = dict(batch_size=128, num_workers=0, drop_last=False, dataset=dict(views=dict(both=dict(count=1))))
default_hooks = dict(logger=dict(interval=12))
