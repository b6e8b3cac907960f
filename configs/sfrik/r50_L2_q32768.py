"""SFRIK, ResNet-50, L = 2, q = 32 768, ImageNet-1k (Zheng et al., ICLR 2023).

bash tools/dist_train.sh configs/sfrik/r50_L2_q32768.py 8
Published: 70.3 % linear top-1 after 200 epochs. Not measured by us.
The kernel weights of this row are not public: ours,
so the published figure may stand on others.
"""

_base_ = 'r50_L3_q32768.py'

model = dict(
    head=dict(kernel=dict(weights=(1.0, 40.0))),
)
