"""MMD to uniform with the bandlimited kernel, L = 2 (Expanding SPHERE-JEPA, arXiv 2606.17603), digits. Recipe of ours.

mmkernel train configs/sphere_jepa/digits_mmd_bandlimited.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    head=dict(
        type='KernelMMDHead', kernel=dict(type='BandlimitedKernel', order=2), alignment_weight=20.0, kernel_weight=40.0
    )
)
