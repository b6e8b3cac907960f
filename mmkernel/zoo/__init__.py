"""Weights that leave the house, and weights that come in."""

from mmkernel.zoo.cache import clean, verify
from mmkernel.zoo.catalogue import UnknownModelError, config_of, list_models, model_info
from mmkernel.zoo.detection import FRAMEWORKS, export_detection, from_framework, key_table, resnet_depth, to_framework
from mmkernel.zoo.download import download
from mmkernel.zoo.encoder import Encoder, get_features
from mmkernel.zoo.errors import DiskFullError, DownloadError
from mmkernel.zoo.files import CheckpointError, read_checkpoint, write_checkpoint
from mmkernel.zoo.hub import get_model
from mmkernel.zoo.key_map import KeyMapError, key_maps
from mmkernel.zoo.loading import LoadReport, load_weights, weights_of
from mmkernel.zoo.metafile import MetafileError, ModelInfo, read_metafile
from mmkernel.zoo.pins import HashMismatchError
from mmkernel.zoo.recognise import load_file

__all__ = [
    'FRAMEWORKS', 'CheckpointError', 'DiskFullError', 'DownloadError', 'Encoder', 'HashMismatchError', 'KeyMapError',
    'LoadReport', 'MetafileError', 'ModelInfo', 'UnknownModelError', 'clean', 'config_of', 'download', 'export_detection',
    'from_framework', 'get_features', 'get_model', 'key_maps', 'key_table', 'list_models', 'load_file', 'load_weights',
    'model_info', 'read_checkpoint', 'read_metafile', 'resnet_depth', 'to_framework', 'verify', 'weights_of', 'write_checkpoint',
]  # fmt: skip
