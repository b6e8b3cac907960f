"""Kernel Stein discrepancy to uniform, heat kernel (Expanding SPHERE-JEPA, arXiv 2606.17603), digits. Recipe of ours.

mmkernel train configs/sphere_jepa/digits_ksd_heat.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='SteinKernel', kernel=dict(type='HeatKernel', time='5/q')),
        alignment_weight=20.0,
        kernel_weight=0.5,
    )
)
