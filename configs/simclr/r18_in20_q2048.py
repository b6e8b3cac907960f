"""SimCLR, ResNet-18, q = 2048, 20 % of ImageNet: a baseline of Zheng et al., ICLR 2023 (Chen et al., ICML 2020).

bash tools/dist_train.sh configs/simclr/r18_in20_q2048.py 4
Published: 45.8 % linear top-1 after 100 epochs. Not measured by us.
The rate and the temperature of this row are not public: ours are those of q = 8192.
"""

_base_ = 'r18_in20_q8192.py'

model = dict(neck=dict(dims=(8192, 8192, 2048)))
