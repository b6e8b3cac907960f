"""Weights of other libraries -> an encoder of ours that describes itself."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmkernel.registry import MODELS, TRANSFORMS
from mmkernel.zoo.detection import from_framework
from mmkernel.zoo.encoder import Encoder
from mmkernel.zoo.files import read_checkpoint
from mmkernel.zoo.key_map import key_maps
from mmkernel.zoo.metafile import ModelInfo
from mmkernel.zoo.pins import CheckpointError, check_file
from mmkernel.zoo.plain_config import plain_json, without_weights
from mmkernel.zoo.portable import Portable, Preprocessing, portable_encoder, read_portable
from mmkernel.zoo.recognise import load_content

FOUND = ('auto', 'timm', 'torchvision', 'mmdet', 'mmseg')  # names as ours below some prefix, which is found
SAFE = {('numpy', 'ndarray'), ('numpy', 'dtype'), ('_codecs', 'encode')}
SAFE |= {(f'numpy.{core}.multiarray', name) for core in ('core', '_core') for name in ('_reconstruct', 'scalar')}
SAFE |= {(f'numpy.{core}.numeric', '_frombuffer') for core in ('core', '_core')}


def layouts() -> list[str]:
    """What ``--from`` takes."""
    return [*FOUND, 'detectron2', 'hf', *(name for name in key_maps() if not name.startswith('to_'))]


def load_encoder(path: str | Path, cfg: Mapping[str, Any] | None = None) -> Encoder:
    """The encoder of a published file of ours, in eval mode, with its preprocessing; ``cfg``: for a file that lacks it."""
    found, _ = read_portable(path, cfg)
    pixels = found.preprocessing
    normalise = MODELS.build(dict(type='ViewPreprocessor', mean=pixels.mean, std=pixels.std))
    info = ModelInfo(str(found.facts.get('name') or Path(path).stem), collection='', config=None)
    encoder = Encoder(found.backbone, normalise, TRANSFORMS.build(pixels.transform), info).eval()
    encoder.portable = found  # what ``export_model`` needs
    return encoder


def import_weights(
    path: str | Path,
    layout: str = 'auto',
    cfg: Mapping[str, Any] | None = None,
    arch: str | None = None,
    channels: int = 3,
    prefix: str | None = None,
    adapt_input: bool = False,
    **facts: Any,
) -> tuple[Portable, str]:
    """(encoder, report) of a file of another library, every tensor of the backbone filled from it.

    Args:
        layout: one of ``layouts()``.
        cfg, arch: what to build: the backbone of a config, or a timm model by name; a folder of the hub says it itself.
        channels: of the images, with ``arch``.
        prefix, adapt_input: see ``load_file``.
    """
    path = Path(path)
    if layout not in layouts():
        raise ValueError(f"there is no layout '{layout}'; expected one of {', '.join(layouts())}.")
    if layout == 'hf' or path.is_dir():
        found, content = _hub_folder(path)
    else:
        found = portable_encoder(cfg) if cfg is not None else _by_name(arch, channels, path)
        content = read_arrays(path) if path.suffix == '.pkl' else read_checkpoint(path)
    if layout == 'detectron2':
        content = _renamed(content)
    known = layout if layout in key_maps() else None
    report = load_content(found.backbone, content, str(path), known, prefix, adapt_input)
    found.facts = {'source': f'imported from {path.name}', **{k: v for k, v in facts.items() if v is not None}}
    return found, str(report)


def _by_name(arch: str | None, channels: int, path: Path) -> Portable:
    """Preprocessing as timm has it for this model, ImageNet's for most."""
    if not arch:
        raise ValueError(f"what is in '{path}'? Name its architecture (--arch resnet50) or a config (--config).")
    options = dict(type='TIMMBackbone', model_name=arch, in_channels=channels)
    return _with_timm_settings(MODELS.build(dict(options)), options, {})


def _hub_folder(path: Path) -> tuple[Portable, dict[str, Any]]:
    file, weights = path / 'config.json', path / 'model.safetensors'
    if not (file.is_file() and weights.is_file()):
        raise FileNotFoundError(
            f"'{path}' is no folder of the hub's layout: config.json and model.safetensors are needed."
        )
    config = plain_json(file.read_text(encoding='utf-8'), str(file))
    try:
        arguments, settings = dict(config.get('model_args') or {}), dict(config.get('pretrained_cfg') or {})
        channels = arguments.pop('in_chans', None) or (settings.get('input_size') or [3])[0]
        arguments.pop('num_classes', None)
        options = dict(type='TIMMBackbone', model_name=config['architecture'], in_channels=channels)
        options |= without_weights({key: value for key, value in arguments.items() if key not in options})
        found = _with_timm_settings(MODELS.build(dict(options)), options, settings)
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{file}' does not say how its encoder is built: {error!r}.") from error
    return found, read_checkpoint(weights)


def _with_timm_settings(backbone: nn.Module, options: dict, given: Mapping[str, Any]) -> Portable:
    settings = {**backbone.pretrained_cfg, **given}
    channels, (_, height, width) = options['in_channels'], settings['input_size']
    mean, std = (
        tuple(v) if len(v) == channels else (sum(v) / len(v),) * channels for v in (settings['mean'], settings['std'])
    )
    resize = round(min(height, width) / settings.get('crop_pct', 1.0))
    crop = height if height == width else (height, width)
    pixels = Preprocessing(mean, std, (height, width), resize, crop, settings.get('interpolation', 'bicubic'))
    return Portable(backbone.eval(), options, pixels)


class _ArraysOnly(pickle.Unpickler):
    """numpy arrays and plain values; anything else in a pickle could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in SAFE:
            raise pickle.UnpicklingError(f'{module}.{name}')
        return super().find_class(module, name)


def read_arrays(path: Path) -> dict[str, Any]:
    """A .pkl as detectron2 writes them: arrays become tensors."""
    check_file(path)
    with open(path, 'rb') as file:
        try:
            content = _ArraysOnly(file).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, IndexError) as error:
            raise CheckpointError(
                f"'{path}' is no pickle of arrays, or is damaged: {error}. Other classes are not loaded: they can run code."
            ) from error
    arrays = content.get('model', content) if isinstance(content, dict) else {}
    return dict(model={key: torch.from_numpy(np.array(a)) for key, a in arrays.items() if isinstance(a, np.ndarray)})


def _renamed(content: Mapping[str, Any]) -> dict[str, Any]:
    state = content.get('model', content)
    return from_framework(
        {key.removeprefix('backbone.').removeprefix('bottom_up.'): value for key, value in state.items()
         if key.removeprefix('backbone.').removeprefix('bottom_up.').startswith(('stem.', 'res'))}, 'detectron2',
    )  # fmt: skip
