"""Linear classifier of SimSiam (Chen & He, CVPR 2021, main_lincls --lars): LARC, 0.1 x 4096 / 256, 90 epochs.

torchrun --nproc_per_node 8 -m mmkernel classify configs/simsiam/r50.py CHECKPOINT \
    --protocol configs/benchmarks/linear_simsiam.py
Published: 68.1 % top-1 after 100 epochs of pretraining. Not measured by us.
"""

_base_ = '../_base_/imagenet_classifier.py'

train_dataloader = dict(batch_size=512)
train_cfg = dict(max_epochs=90)
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=0.0, type='LARS', norms='separate', scale_all=True))
lr_scaling = 'linear'
