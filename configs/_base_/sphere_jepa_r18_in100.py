"""ResNet-18, q = 256, 200 epochs of batch 256 on ImageNet-100: SPHERE-JEPA's setting. The config adds phi.

arXiv 2605.26900 and 2606.17603, 2026, give these figures. Views, projector, rate, decay, schedule and weights are ours:
no code is public.
"""

_base_ = ['imagenet100_two_views.py', 'adamw_100e.py', 'runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(2048, 2048, 256), last_bias=True),
    head=dict(type='KernelMMDHead', alignment_weight=1.0, kernel_weight=40.0, reduction='sample'),
)
train_cfg = dict(max_epochs=200)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=5e-4))
