"""SFRIK, ResNet-50, L = 2, q = 16 384, ImageNet-1k (Zheng et al., ICLR 2023).

bash tools/dist_train.sh configs/sfrik/r50_L2_q16384.py 8
Published: 70.3 % linear top-1 after 200 epochs. Not measured by us.
The kernel weights of this row and the alignment weight at this width are not public: ours,
so the published figure may stand on others.
"""

_base_ = 'r50_L3_q32768.py'

model = dict(
    neck=dict(dims=(8192, 8192, 16384)),
    head=dict(kernel=dict(weights=(1.0, 40.0)), alignment_weight=20000.0),  # the same 1.22 per ||u - v||^2
)
