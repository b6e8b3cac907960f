"""Barlow Twins, ResNet-50, q = 8192, ImageNet-1k (Zbontar et al., ICML 2021).

bash tools/dist_train.sh configs/barlow_twins/r50.py 8
Published: 73.5 % linear top-1 after 1000 epochs (batch 2048), the released weights and their recipe. Not measured by us.
The paper's 73.2 % is another run: decay 1.5e-6, 32 GPUs. The incomplete last batch of an epoch is left out (625 steps);
theirs is kept (626).
Biases and norm parameters had their own rate, 0.0048, in code whose gradient was 1/16 of the exact one on 16 GPUs:
LARS hides such a factor for weights but not for them. Ours is exact, so their rate is 0.0048 / 16 = 0.0003.
"""

_base_ = ['../_base_/imagenet_two_views.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(8192, 8192, 8192), bias=False),
    head=dict(type='CrossCorrelationHead', off_diagonal_weight=0.0051),
)
train_cfg = dict(max_epochs=1000)
optim_wrapper = dict(
    precision='float16',
    optimizer=dict(lr=0.2),  # x 2048 / 256 = 1.6
    constructor='VectorRateConstructor',
    paramwise_cfg=dict(vector_lr_mult=0.0015),  # 0.0003 / 0.2
)
