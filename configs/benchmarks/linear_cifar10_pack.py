"""Linear classifier on CIFAR-10, one npz of encoded images: rate 0.4, 20 epochs. A recipe of ours.

mmkernel classify configs/sfrik/cifar10_pack_L3_q2048.py CHECKPOINT \
    --protocol configs/benchmarks/linear_cifar10_pack.py
No published result. Not measured by us to the end.
"""

_base_ = ['../_base_/classifier.py', '../_base_/loader.py']

model = dict(backbone=dict(model_name='resnet18', small_images=True, zero_init_residual=True), num_classes=10)
train_dataloader = dict(
    batch_size=256,
    num_workers=2,
    drop_last=False,
    dataset=dict(
        source=dict(type='NpzPack', path='data/cifar10_jpeg.npz', split='train'),
        views=dict(
            only=dict(
                count=1,
                size=32,
                crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bicubic'),
                ops=dict(flip=dict(type='RandomFlip', probability=0.5)),
            )
        ),
    ),
)
data_preprocessor = dict(type='ViewPreprocessor', mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
evaluation = dict(
    train=dict(type='NpzPack', path='data/cifar10_jpeg.npz', split='train'),
    test=dict(type='NpzPack', path='data/cifar10_jpeg.npz', split='test'),
    transform=dict(type='CenterView', resize=None, crop=None),
    batch_size=512,
    num_workers=2,
)
train_cfg = dict(max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=0.4, weight_decay=1e-6))
