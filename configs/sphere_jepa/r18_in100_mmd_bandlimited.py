"""Expanding SPHERE-JEPA, MMD to uniform with the bandlimited kernel, L = 2, q = 256, ImageNet-100 (arXiv 2606.17603).

mmkernel train configs/sphere_jepa/r18_in100_mmd_bandlimited.py
Published: 72.3 % linear top-1 after 200 epochs (67.3 kNN; mean of their runs). Not measured by us.
"""

_base_ = '../_base_/sphere_jepa_r18_in100.py'

model = dict(head=dict(kernel=dict(type='BandlimitedKernel', order=2)))
