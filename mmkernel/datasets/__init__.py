"""Data: sources of images, the views made of them, and the order in which they come."""

from .binaries import CIFAR10, CIFAR100, STL10
from .crops import CenterCrop, CenterView, RandomResizedCrop
from .digits import Digits
from .draws import generator
from .folders import ImageFolder, ImageNet
from .geometry import GaussianNoise, RandomAffine, RandomErasing
from .images import CorruptImageError, decode
from .operations import ColorJitter, GaussianBlur, Operation, RandomFlip, RandomGrayscale, Solarize
from .packs import NpzPack
from .sampler import BalancedSampler, EpochSampler
from .sources import Source
from .training import EvaluationDataset, ViewDataset, check_dataloader
from .views import PatchView, View

__all__ = [
    'CIFAR10', 'CIFAR100', 'STL10', 'BalancedSampler', 'CenterCrop', 'CenterView', 'ColorJitter', 'CorruptImageError', 'Digits',
    'EpochSampler', 'EvaluationDataset', 'GaussianBlur', 'GaussianNoise', 'ImageFolder', 'ImageNet', 'NpzPack',
    'Operation', 'PatchView', 'RandomAffine', 'RandomErasing', 'RandomFlip', 'RandomGrayscale', 'RandomResizedCrop',
    'Solarize', 'Source', 'View', 'ViewDataset', 'check_dataloader', 'decode', 'generator',
]  # fmt: skip
