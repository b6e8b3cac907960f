"""Batch norm at the end of the projector, ResNet-18 with a small stem, q = 512, CIFAR-10 (Hua et al., ICCV 2021).

mmkernel train configs/dbn/cifar10_bn.py
No published result at hand for this recipe. Not measured by us.
"""

_base_ = 'cifar10_shuffled_dbn.py'

model = dict(neck=dict(last_norm=dict(_delete_=True, type='BN', affine=False)))
