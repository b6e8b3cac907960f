"""SPHERE-JEPA with all slices at once: Epps and Pulley's kernel on the sphere of radius sqrt(q), q = 256, ImageNet-100.

mmkernel train configs/sphere_jepa/r18_in100_all_slices.py
Published: 71.2 % linear top-1 after 200 epochs (65.7 kNN; SUSReg, arXiv 2605.26900, 2026). Not measured by us.
Theirs draws slices, each tested against that of the uniform distribution; this kernel is the mean over all slices.
"""

_base_ = '../_base_/sphere_jepa_r18_in100.py'

model = dict(head=dict(kernel=dict(type='EppsPulleyKernel', radius='sqrt(q)')))
