"""SwAV, ResNet-50, small batches with a queue, 2 crops of 160 and 4 of 96, ImageNet-1k (Caron et al., NeurIPS 2020).

bash tools/dist_train.sh configs/swav/r50_256_2x160_4x96.py 4
Published: 72.0 % linear top-1 after 200 epochs (batch 256). Not measured by us.
Their script for these crops is not public: shares of the area are those of DeepCluster-v2's script with the same sizes.
"""

_base_ = 'r50_256.py'

train_dataloader = dict(
    dataset=dict(views=dict(large=dict(size=160, crop=dict(scale=(0.08, 1.0))), small=dict(count=4)))
)
