"""SwAV, ResNet-50, small batches with a queue, 2 crops of 224 and 6 of 96, ImageNet-1k (Caron et al., NeurIPS 2020).

bash tools/dist_train.sh configs/swav/r50_256.py 4
Published: 72.7 % linear top-1 after 200 epochs (batch 256). Not measured by us.
"""

_base_ = 'r50.py'

model = dict(head=dict(queue_length=3840))
train_cfg = dict(max_epochs=200)
optim_wrapper = dict(optimizer=dict(lr=0.6))
param_scheduler = dict(warmup_epochs=0)
default_hooks = dict(
    freeze=dict(layers={'head.prototypes': dict(steps=5005)}),
    queue=dict(type='QueueHook', start_epoch=15),
)
