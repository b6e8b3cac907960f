"""SwAV, ResNet-50, 3000 prototypes, 2 crops of 224, ImageNet-1k (Caron et al., NeurIPS 2020).

bash tools/dist_train.sh configs/swav/r50_2x224.py 64
Published: 70.1 % linear top-1 after 400 epochs (batch 4096). Not measured by us.
Batch-norm statistics: see r50.py.
"""

_base_ = 'r50.py'

train_cfg = dict(max_epochs=400)
train_dataloader = dict(dataset=dict(views=dict(large=dict(crop=dict(scale=(0.08, 1.0))), small=None)))
