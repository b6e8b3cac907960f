"""Data: sources of images, the views made of them, and the order in which they come."""

from .colors import ColorJitter, RandomGrayscale
from .corruptions import AutoAugment, ColorDrop, GaussianNoise, Sobel
from .crops import CenterCrop, CenterView, RandomResizedCrop
from .device_views import DeviceViews
from .draws import generator
from .folders import ImageFolder, ImageNet
from .geometry import Cutout, PaddedCrop, RandomAffine, RandomErasing, RandomRotation
from .image_list import ImageList
from .imagenet_subsets import ImageNet100, Imagenette
from .images import CorruptImageError, decode
from .large_sets import INaturalist, Places205
from .listed_sets import SUN397, VOC2007, Birdsnap
from .loader import BalancedSampler, EpochSampler, build_dataloader, check_dataloader, collate_views, part_of_epoch
from .operations import GaussianBlur, Operation, RandomFlip, Solarize
from .packs import NpzPack
from .parquet_files import Parquet
from .published_sets import DTD, Caltech101, FGVCAircraft, Flowers102, Food101, OxfordPets, PublishedSet, StanfordCars
from .small_images import CIFAR10, CIFAR100, STL10, Digits
from .sources import Source
from .subsets import TASKS, Subset, TransformedSource
from .tar_shards import TarShards
from .torchvision_sets import Torchvision
from .training import EvaluationDataset, ViewDataset
from .views import PatchView, View
