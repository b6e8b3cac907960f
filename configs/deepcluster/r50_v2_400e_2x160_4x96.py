"""DeepCluster-v2, ResNet-50, 3 x 3000 clusters, 2 x 160 + 4 x 96 crops, ImageNet-1k (Caron et al., NeurIPS 2020).

bash tools/dist_train.sh configs/deepcluster/r50_v2_400e_2x160_4x96.py 64
Published: 74.3 % linear top-1 after 400 epochs. Not measured by us.
Batch-norm statistics and clustering: see r50_v2_800e.py.
"""

_base_ = 'r50_v2_800e.py'

train_dataloader = dict(
    dataset=dict(views=dict(large=dict(size=160, crop=dict(scale=(0.08, 1.0))), small=dict(count=4)))
)
train_cfg = dict(max_epochs=400)
