"""Data: sources of images, the views made of them, and the order in which they come."""

from .autoaugment import AutoAugment
from .binaries import CIFAR10, CIFAR100, STL10
from .corruptions import ColorDrop, Cutout, PaddedCrop, RandomRotation, Sobel
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
from .voc import VOC2007

__all__ = [
    'CIFAR10', 'CIFAR100', 'STL10', 'AutoAugment', 'BalancedSampler', 'CenterCrop', 'CenterView', 'ColorDrop',
    'ColorJitter', 'CorruptImageError', 'Cutout', 'Digits', 'EpochSampler', 'EvaluationDataset', 'GaussianBlur',
    'GaussianNoise', 'ImageFolder', 'ImageNet', 'NpzPack', 'Operation', 'PaddedCrop', 'PatchView', 'RandomAffine',
    'RandomErasing', 'RandomFlip', 'RandomGrayscale', 'RandomResizedCrop', 'RandomRotation', 'Sobel', 'Solarize',
    'Source', 'VOC2007', 'View', 'ViewDataset', 'check_dataloader', 'decode', 'generator',
]  # fmt: skip
