"""Alignment and uniformity, ResNet-18, q = 4096, 20 % of ImageNet (baseline of Zheng et al., ICLR 2023).

bash tools/dist_train.sh configs/kernels/r18_in20_rbf_q4096.py 4
Published: 46.7 % linear top-1 after 100 epochs (their run). Not measured by us.
The rate, the scale and the alignment weight of this row are not public: ours keep those of q = 8192, 0.366 per ||u - v||^2.
"""

_base_ = 'r18_in20_rbf_q8192.py'

model = dict(neck=dict(dims=(8192, 8192, 4096)), head=dict(alignment_weight=1500.0))
