"""MoCo v3, ViT-B/16, in-batch keys, ImageNet-1k (Chen, Xie & He, ICCV 2021).

bash tools/dist_train.sh configs/moco/vit_base_v3.py 64
Published: 76.7 % linear top-1 after 300 epochs (batch 4096), 83.2 % fine-tuned. Not measured by us.
"""

_base_ = 'vit_small_v3.py'

model = dict(backbone=dict(model_name='vit_base_patch16_224'))
train_dataloader = dict(batch_size=64)
