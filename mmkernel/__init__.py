"""mmkernel: self-supervised visual representation learning with kernels on the hypersphere."""

from importlib import import_module
from typing import Any

__version__ = '0.1.0'

_ROOMS = 'registry kernels losses distributed models datasets engine evaluation planning visualization zoo'.split()
_ZOO = ('export_model', 'get_features', 'get_model', 'list_models', 'load', 'model_info')
_REGISTRIES = ('MODELS', 'KERNELS', 'DATASETS', 'TRANSFORMS', 'HOOKS', 'OPTIMIZERS')


def __getattr__(name: str) -> Any:
    """Rooms and registries on first use, so that ``import mmkernel.kernels`` needs torch alone."""
    if name in _ROOMS:
        return import_module(f'mmkernel.{name}')
    if name in _REGISTRIES:
        return getattr(import_module('mmkernel.registry'), name)
    if name in _ZOO:
        return getattr(import_module('mmkernel.zoo'), name)
    raise AttributeError(f"module 'mmkernel' has no attribute '{name}'")
