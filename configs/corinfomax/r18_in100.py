"""CorInfoMax, ResNet-18, q = 128, ImageNet-100 (Ozsoy et al., NeurIPS 2022).

bash tools/dist_train.sh configs/corinfomax/r18_in100.py 8
Published: 80.5 % linear top-1 after 400 epochs. Not measured by us.
The projector has no batch normalisation, as in their code. Views are those of their ResNet-50 folder: VICReg's.
"""

_base_ = ['../_base_/imagenet100_two_views.py', '../_base_/sgd_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(4096, 4096, 128), norm=None),
    head=dict(type='LogDetHead', alignment_weight=500.0, eps=1e-8, normalize=True),
)
train_cfg = dict(max_epochs=400)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=1.0))
lr_scaling = None
param_scheduler = dict(warmup_epochs=10, start_factor=0.003, end_factor=0.005)
