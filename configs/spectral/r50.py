"""Spectral contrastive loss, ResNet-50, q = 8192, mu = 10, ImageNet-1k (HaoChen et al., NeurIPS 2021).

bash tools/dist_train.sh configs/spectral/r50.py 8
No published result at hand for this recipe of their repository, 100 epochs of batch 384. Not measured by us.
Their code takes the loss of each GPU's rows by themselves; here it is that of the whole batch.
"""

_base_ = ['../_base_/imagenet_moderate_views.py', '../_base_/sgd_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 8192), last_bias=True, last_norm='BN'),
    head=dict(type='SpectralContrastiveHead', mu=10.0),
)
train_cfg = dict(max_epochs=100)
train_dataloader = dict(batch_size=48)
optim_wrapper = dict(precision='bfloat16', optimizer=dict(lr=0.05))  # x 384 / 256 = 0.075
