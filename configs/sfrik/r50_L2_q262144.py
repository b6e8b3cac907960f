"""SFRIK, ResNet-50, L = 2, q = 262 144, ImageNet-1k: the last layer of the projector on all ranks.

bash tools/dist_train.sh configs/sfrik/r50_L2_q262144.py 8
No published result. Not measured by us.
Its weights are 8 GiB; a rank holds an eighth of them, of their gradient and momentum. The weight per squared distance
is that of the published widths.
"""

_base_ = 'r50_L2_q32768.py'

model = dict(
    neck=dict(dims=(8192, 8192, 262144), sharded=True),
    head=dict(alignment_weight=320000.0),  # 1.22 per ||u - v||^2 at this q
)
optim_wrapper = dict(precision='bfloat16')
default_hooks = dict(checkpoint=dict(shards=True))
