"""CIFAR-10, two 32 px views, only the second solarized: the asymmetric recipe of solo-learn (no blur, flip last).

da Costa et al., JMLR 2022. Data: data/cifar10/cifar-10-batches-py/ or cifar-10-batches-bin/.
CIFAR-100: source=dict(type='CIFAR100', root='data/cifar100') here and in evaluation.train and evaluation.test;
its own statistics are mean .5071 .4865 .4409, std .2673 .2564 .2762.
"""

_base_ = 'loader.py'


def view(solarize):
    return dict(
        count=1,
        size=32,
        crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation='bicubic'),
        ops=dict(
            jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
            gray=dict(type='RandomGrayscale', probability=0.2),
            solarize=dict(type='Solarize', threshold=128, probability=solarize),
            flip=dict(type='RandomFlip', probability=0.5),
        ),
    )


train_dataloader = dict(
    num_workers=4,
    dataset=dict(
        source=dict(type='CIFAR10', root='data/cifar10', split='train'),
        views=dict(first=view(0.0), second=view(0.2)),
    ),
)
data_preprocessor = dict(type='ViewPreprocessor', mean=[0.4914, 0.4822, 0.4465], std=[0.247, 0.2435, 0.2616])

evaluation = dict(
    train=dict(type='CIFAR10', root='data/cifar10', split='train'),
    test=dict(type='CIFAR10', root='data/cifar10', split='test'),
    transform=dict(type='CenterView', resize=None, crop=None, interpolation='bicubic'),
    batch_size=512,
    num_workers=2,
)
