"""LeJEPA with all slices at once: the MMD to N(0, I) of its kernel. ResNet-50, crops 2 x 224 + 6 x 98, ImageNet-1k.

bash tools/dist_train.sh configs/lejepa/r50_all_slices.py 8
No published result: a recipe of ours, that of configs/lejepa/r50.py without the noise of its slices. Not measured by us.
"""

_base_ = 'r50.py'

model = dict(
    head=dict(
        _delete_=True,
        type='KernelMMDHead',
        kernel=dict(type='EppsPulleyKernel'),
        target='normal',
        align='mean',
        reduction='element',
        scale_by_rows=True,  # as the sum over the batch in the sliced form
        alignment_weight=0.95,
        kernel_weight=0.05,
    )
)
