"""KoLeo (Sablayrolles et al., ICLR 2019) beside BYOL, ResNet-50, q = 256, ImageNet-1k. Weight: DINOv2's, 0.1 per view.

bash tools/dist_train.sh configs/koleo/r50_byol.py 8
No published result: DINOv2 (Oquab et al., 2023) has the term beside other objectives. Not measured by us.
Nearest neighbours are sought in the rows of all processes, in DINOv2's code in those of one.
"""

_base_ = '../byol/r50.py'

model = dict(
    head=dict(
        _delete_=True,
        type='SumHead',
        heads=dict(
            prediction=dict(type='CosinePredictionHead', weight=2.0),
            entropy=dict(type='EntropyHead', alignment_weight=0.0, density_weight=0.2),  # the sum of two views
        ),
    )
)
optim_wrapper = dict(precision='bfloat16')
