"""VICReg, ResNet-18, q = 1024, 20 % of ImageNet (baseline of Zheng et al., ICLR 2023).

bash tools/dist_train.sh configs/vicreg/r18_in20_q1024.py 4
Published: 40.6 % linear top-1 after 100 epochs (their run). Not measured by us.
The rate and the three weights of this row are not public: ours are those of q = 8192.
"""

_base_ = 'r18_in20_q8192.py'

model = dict(neck=dict(dims=(8192, 8192, 1024)))
