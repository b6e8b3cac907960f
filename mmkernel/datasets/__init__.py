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
from .listed_sets import SUN397, Birdsnap, Caltech101
from .loader import build_dataloader, check_dataloader
from .operations import ColorJitter, GaussianBlur, Operation, RandomFlip, RandomGrayscale, Solarize
from .packs import NpzPack
from .published_sets import (
    DTD,
    FGVCAircraft,
    Flowers102,
    Food101,
    OxfordPets,
    PublishedSet,
    StanfordCars,
)
from .sampler import BalancedSampler, EpochSampler, part_of_epoch
from .sources import Source
from .subsets import Subset
from .training import EvaluationDataset, ViewDataset
from .transformed import TASKS, TransformedSource
from .views import PatchView, View
from .voc import VOC2007

__all__ = [
    'CIFAR10', 'CIFAR100', 'DTD', 'STL10', 'SUN397', 'TASKS', 'VOC2007', 'AutoAugment', 'BalancedSampler', 'Birdsnap',
    'Caltech101', 'CenterCrop', 'CenterView', 'ColorDrop', 'ColorJitter', 'CorruptImageError', 'Cutout', 'Digits',
    'EpochSampler', 'EvaluationDataset', 'FGVCAircraft', 'Flowers102', 'Food101', 'GaussianBlur', 'GaussianNoise',
    'ImageFolder', 'ImageNet', 'NpzPack', 'Operation', 'OxfordPets', 'PaddedCrop', 'PatchView', 'PublishedSet',
    'RandomAffine', 'RandomErasing', 'RandomFlip', 'RandomGrayscale', 'RandomResizedCrop', 'RandomRotation', 'Sobel',
    'Solarize', 'Source', 'StanfordCars', 'Subset', 'TransformedSource', 'View', 'ViewDataset', 'build_dataloader',
    'check_dataloader', 'decode', 'generator', 'part_of_epoch',
]  # fmt: skip
