"""SPHERE-JEPA (arXiv 2605.26900, 2026) with all slices at once, digits. A recipe of ours, a minute on two cores.

mmkernel train configs/sphere_jepa/digits_all_slices.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='EppsPulleyKernel', radius='sqrt(q)'),
        alignment_weight=20.0,
        kernel_weight=40.0,
    )
)
