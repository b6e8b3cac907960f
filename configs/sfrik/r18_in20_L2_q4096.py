"""SFRIK, ResNet-18, L = 2, q = 4096, 20 % of ImageNet (Zheng et al., ICLR 2023).

bash tools/dist_train.sh configs/sfrik/r18_in20_L2_q4096.py 4
Published: 46.9 % linear top-1 after 100 epochs. Not measured by us.
The rate and the weights of this row are not public: ours, so the published figure may stand on others.
"""

_base_ = 'r18_in20_L3_q8192.py'

model = dict(
    neck=dict(dims=(8192, 8192, 4096)),
    head=dict(kernel=dict(weights=(1.0, 40.0)), alignment_weight=2000.0),  # the same 0.488 per ||u - v||^2
)
