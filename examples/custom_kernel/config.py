"""Digits with the kernel and the head of my_kernel.py.

mmkernel train examples/custom_kernel/config.py
No published result. Not measured by us.
"""

_base_ = '../../configs/_base_/digits_recipe.py'
custom_imports = dict(imports=['my_kernel'])

model = dict(
    head=dict(
        type='WorstViewHead',
        kernel=dict(type='InverseMultiquadric', c=0.5),
        alignment_weight=0.5,
        reduction='sample',
    )
)
