"""LeJEPA with all slices at once: the MMD to N(0, I) of its kernel, q = 64, digits. A recipe of ours.

mmkernel train configs/lejepa/digits_all_slices.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = 'digits.py'

model = dict(
    head=dict(
        _delete_=True,
        type='KernelMMDHead',
        kernel=dict(type='EppsPulleyKernel'),
        target='normal',
        align='mean',
        reduction='element',
        scale_by_rows=True,
        alignment_weight=0.98,
        kernel_weight=0.02,
    )
)
