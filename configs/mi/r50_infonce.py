"""InfoNCE bound on the mutual information of two views, ResNet-50, ImageNet-1k (Poole et al., ICML 2019). A recipe of ours.

bash tools/dist_train.sh configs/mi/r50_infonce.py 8
No published result: the paper measures bounds on Gaussians, whose information is known. Not measured by us.
"""

_base_ = ['../_base_/imagenet_strong_views.py', '../_base_/lars_100e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet50', zero_init_residual=True),
    neck=dict(type='MLPNeck', dims=(2048, 128)),
    head=dict(
        type='MutualInformationHead',
        bound='infonce',
        critic=dict(type='SeparableCritic', dims=(), normalize=True, temperature=0.1),
    ),
)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(precision='bfloat16', optimizer=dict(lr=0.3))  # x 2048 / 256 = 2.4
