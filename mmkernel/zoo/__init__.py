"""The model zoo: models by name, verified downloads; loading, importing, exporting and publishing weights."""

from importlib import import_module
from typing import Any

from mmkernel.zoo.catalogue import UnknownModelError, config_of, list_models, model_info
from mmkernel.zoo.download import download
from mmkernel.zoo.files import DiskFullError, read_checkpoint, write_checkpoint
from mmkernel.zoo.loading import LoadReport, load_file, load_weights
from mmkernel.zoo.metafile import MetafileError, ModelInfo, read_metafile
from mmkernel.zoo.name_rules import KeyMapError, key_maps
from mmkernel.zoo.pins import CheckpointError, DownloadError, HashMismatchError, clean, verify
from mmkernel.zoo.tensor_names import weights_of

# Bring timm and torchvision: seconds that a list of names need not pay.
_ON_FIRST_USE = {
    'Encoder': 'encoder', 'get_features': 'hub', 'get_model': 'hub', 'load': 'opening',
    'TARGETS': 'export', 'export_model': 'export', 'ExportError': 'export_targets', 'Published': 'publish',
    'publish_checkpoint': 'publish',
}  # fmt: skip


def __getattr__(name: str) -> Any:
    name = 'load' if name == 'load_encoder' else name  # in cards of published files
    if name in _ON_FIRST_USE:
        return getattr(import_module(f'mmkernel.zoo.{_ON_FIRST_USE[name]}'), name)
    raise AttributeError(f"module 'mmkernel.zoo' has no attribute '{name}'")
