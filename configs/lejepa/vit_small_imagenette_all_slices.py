"""LeJEPA with all slices at once: the MMD to N(0, I) of its kernel. ViT-S/8 at 128 px, q = 16, Imagenette.

mmkernel train configs/lejepa/vit_small_imagenette_all_slices.py
No published result: a recipe of ours, that of configs/lejepa/vit_small_imagenette.py without slices. Not measured by us.
"""

_base_ = 'vit_small_imagenette.py'

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
