"""The CIFAR-10 recipe on one npz file of encoded images; see configs/_base_/cifar10_pack_two_views.py for the file.

mmkernel train configs/sfrik/cifar10_pack_L3_q2048.py
No published result. Not measured by us.
"""

_base_ = 'cifar10_L3_q2048.py'

pack = 'data/cifar10_jpeg.npz'
train_dataloader = dict(dataset=dict(source=dict(_delete_=True, type='NpzPack', path=pack, split='train')))
evaluation = dict(
    train=dict(_delete_=True, type='NpzPack', path=pack, split='train'),
    test=dict(_delete_=True, type='NpzPack', path=pack, split='test'),
)
