"""InfoNCE bound on the mutual information of two views, ResNet-18, CIFAR-10 (Poole et al., ICML 2019). A recipe of ours.

mmkernel train configs/mi/cifar10_infonce.py
No published result. Not measured by us.
"""

_base_ = ['../_base_/cifar10_strong_views.py', '../_base_/cifar_lars_1000e.py', '../_base_/runtime.py']

model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True),
    neck=dict(type='MLPNeck', dims=(2048, 256)),
    head=dict(
        type='MutualInformationHead',
        bound='infonce',
        critic=dict(type='SeparableCritic', dims=(), normalize=True, temperature=0.2),
    ),
)
optim_wrapper = dict(precision='bfloat16', optimizer=dict(lr=0.4, weight_decay=1e-4))
