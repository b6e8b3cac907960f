"""CIFAR-10 from one npz file of encoded images (see mmkernel/datasets/packs.py for its keys); views as there.

A pack of lossy JPEG copies does not give exactly the published accuracies: say which copy stands beside a figure.
"""

_base_ = 'cifar10_two_views.py'

train_dataloader = dict(
    dataset=dict(source=dict(_delete_=True, type='NpzPack', path='data/cifar10_jpeg.npz', split='train'))
)
evaluation = dict(
    train=dict(_delete_=True, type='NpzPack', path='data/cifar10_jpeg.npz', split='train'),
    test=dict(_delete_=True, type='NpzPack', path='data/cifar10_jpeg.npz', split='test'),
)
