"""Expanding SPHERE-JEPA, KSD to uniform with the heat kernel of time 5/q, q = 256, ImageNet-100 (arXiv 2606.17603).

mmkernel train configs/sphere_jepa/r18_in100_ksd_heat.py
Published: 72.6 % linear top-1 after 200 epochs (66.7 kNN; mean of their runs). Not measured by us.
"""

_base_ = '../_base_/sphere_jepa_r18_in100.py'

model = dict(head=dict(kernel=dict(type='SteinKernel', kernel=dict(type='HeatKernel', time='5/q')), kernel_weight=0.5))
