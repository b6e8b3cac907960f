"""The 20 % subset of ImageNet: the first 260 images of each class in sorted file order. Views as for the whole set.

Zheng et al., ICLR 2023. Batch 2048 = 4 processes x 512: 126 steps an epoch, the incomplete last batch left out (theirs keep
it, 127). Hyper-parameters were tuned on the next 260 images of each class (evaluation.test=dict(split='train',
images_per_class=260, held_out=True)); the figures are for the validation set.
"""

_base_ = 'imagenet_two_views.py'

train_dataloader = dict(batch_size=512, dataset=dict(source=dict(images_per_class=260)))
evaluation = dict(train=dict(images_per_class=260))
