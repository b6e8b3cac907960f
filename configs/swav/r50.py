"""SwAV, ResNet-50, 3000 prototypes, 2 crops of 224 and 6 of 96, ImageNet-1k (Caron et al., NeurIPS 2020).

bash tools/dist_train.sh configs/swav/r50.py 64
Published: 75.3 % linear top-1 after 800 epochs (batch 4096). Not measured by us.
Batch-norm statistics are those of all processes, as everywhere here; theirs are those of groups of 8 (apex).
"""

_base_ = ['../_base_/imagenet_multicrop.py', '../_base_/lars_200e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50'),
    neck=dict(type='MLPNeck', dims=(2048, 128), last_bias=True),
    head=dict(type='SinkhornCodesHead', num_prototypes=3000, temperature=0.1, epsilon=0.05, iterations=3),
    target_views=(0, 1),
    batching='size',
    neck_batching='all',
)
train_cfg = dict(max_epochs=800)
train_dataloader = dict(batch_size=64)
data_preprocessor = dict(std=[0.228, 0.224, 0.225])
optim_wrapper = dict(precision='float16', optimizer=dict(lr=0.3, norms='separate', scale_all=True))  # x 16 = 4.8
param_scheduler = dict(start_factor=0.0625)  # from 0.3
default_hooks = dict(freeze=dict(type='FreezeHook', layers={'head.prototypes': dict(steps=313)}))
