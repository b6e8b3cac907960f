"""Fine-tuning on the published 1 % of ImageNet-1k, all weights and batch norms training: 20 epochs, batch 256 = 8 x 32.

data/imagenet/1percent.txt and 10percent.txt: the lists of github.com/google-research/simclr (imagenet_subsets).
"""

_base_ = 'imagenet_classifier.py'

model = dict(frozen=False)
train_dataloader = dict(
    dataset=dict(
        source=dict(
            _delete_=True,
            type='Subset',
            source=dict(type='ImageNet', root='data/imagenet', split='train'),
            names='data/imagenet/1percent.txt',
        )
    )
)
train_cfg = dict(max_epochs=20)
optim_wrapper = dict(constructor='PartRateConstructor')
