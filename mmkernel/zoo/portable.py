"""An encoder with all that someone needs who uses it elsewhere: how it is built, what images it wants, where it comes from."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mmkernel
from mmkernel.registry import MODELS
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.files import meta_of, read_checkpoint
from mmkernel.zoo.metafile import RESULT
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.plain_config import (
    OF_ONE_MACHINE,
    ConfigTextError,
    config_values,
    plain_config,
    plain_json,
    without_weights,
)
from mmkernel.zoo.recognise import load_content

LARGEST = 1 << 14  # pixels of a side
FACTS = ('name', 'license', 'source', 'trained_on', 'note')


@dataclass(frozen=True)
class Preprocessing:
    """(x / 255 - mean) / std of RGB or grey images whose short side became ``resize`` and whose middle is ``crop``; None: as is."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]  # height and width that the network was judged with
    resize: int | None = None
    crop: int | tuple[int, int] | None = None
    interpolation: str = 'bicubic'

    def __post_init__(self) -> None:
        lengths = len(self.mean), len(self.std)
        numbers = [*self.mean, *self.std]
        if lengths[0] != lengths[1] or not all(math.isfinite(n) for n in numbers) or min(self.std, default=0) <= 0:
            raise ValueError(f'mean and std are finite, as many, std > 0; got {self.mean}, {self.std}.')
        if not all(type(n) is int and 0 < n <= LARGEST for n in self.size) or len(self.size) != 2:
            raise ValueError(f'size is height and width in pixels, 1 to {LARGEST}; got {self.size}.')

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> float."""
        mean, std = (255 * torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images.float() - mean) / std  # in the order of the models' own preprocessor: equal to the last bit

    @property
    def transform(self) -> dict[str, Any]:
        return dict(type='CenterView', resize=self.resize, crop=self.crop, interpolation=self.interpolation)


@dataclass
class Portable:
    """``options``: of the backbone in the config. ``facts``: name, license, source, config (text), metrics, epochs, ..."""

    backbone: nn.Module
    options: dict[str, Any]
    preprocessing: Preprocessing
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return int(self.options.get('in_channels', 3))

    def images(self, count: int = 2, seed: int = 0) -> Tensor:
        """uint8 noise (count, C, H, W), the same on every machine: exports are compared on it."""
        shape = (count, self.channels, *self.preprocessing.size)
        return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What every export must give: uint8 (B, C, H, W) -> (B, d)."""
        return self.backbone.eval()(self.preprocessing.normalise(images))

    def metadata(self) -> dict[str, str]:
        """Texts for the header of a safetensors file; ``of_metadata`` reads them."""
        facts = {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in self.facts.items() if value
        }
        if 'config' in facts:
            values = config_values(facts['config'], 'facts')
            facts['config'] = config_text({k: v for k, v in values.items() if k not in OF_ONE_MACHINE})
        return dict(
            format='pt',  # what other readers of safetensors look for
            mmkernel=mmkernel.__version__,
            backbone=json.dumps(self.options),
            preprocessing=json.dumps(asdict(self.preprocessing)),
            **facts,
        )


def portable_encoder(
    cfg: Mapping[str, Any], backbone: nn.Module | None = None, size: tuple[int, int] | None = None, **facts: Any
) -> Portable:
    """The encoder of a config; ``backbone`` None: built, with random weights. ``size``: height and width, None: of the config."""
    options = copy.deepcopy(without_weights(cfg['model']['backbone']))
    if backbone is None:
        backbone = MODELS.build(dict(options))
    channels = int(options.get('in_channels', 3))
    pixels = cfg.get('data_preprocessor') or cfg['model'].get('data_preprocessor') or {}
    mean, std = (
        tuple(float(v) for v in pixels.get(key, default)) for key, default in (('mean', (0.0,)), ('std', (1.0,)))
    )
    if len(mean) == 1:
        mean, std = mean * channels, std * channels
    transform = (cfg.get('evaluation') or {}).get('transform') or {}
    preprocessing = Preprocessing(
        mean, std, size or _size(cfg, transform), transform.get('resize'), _plain(transform.get('crop')),
        transform.get('interpolation', 'bicubic'),
    )  # fmt: skip
    return Portable(backbone.eval(), json.loads(json.dumps(options)), preprocessing, facts)


def of_metadata(meta: Mapping[str, str], source: str) -> Portable:
    """An encoder with random weights, as the header of a file of ours describes it."""
    facts = facts_of(meta, source)
    if 'config' in meta:
        facts['config'] = config_text(plain_config(meta['config'], source))
    try:
        options, pixels = (plain_json(meta[key], source) for key in ('backbone', 'preprocessing'))
        options = without_weights(options)
        preprocessing = Preprocessing(**{key: _plain(value) for key, value in pixels.items()})
        if len(preprocessing.mean) != options.get('in_channels', 3):
            raise ValueError(f'mean of {len(preprocessing.mean)} channels, images of {options.get("in_channels", 3)}')
        return Portable(MODELS.build(dict(options)).eval(), options, preprocessing, facts)
    except ConfigTextError:
        raise
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # any nonsense
        raise CheckpointError(
            f"'{source}' does not say how its encoder is built ({error!r}): name its config (--config)."
        ) from error


def read_portable(path: str | Path, cfg: Mapping[str, Any] | None = None, **facts: Any) -> tuple[Portable, str]:
    """(encoder, report of loading) of a checkpoint of any layout; ``cfg`` None: the file is one of ours and describes itself."""
    content = read_checkpoint(path)
    meta = meta_of(content)
    known = {key: value for key, value in facts.items() if value is not None}
    if cfg is None:
        found = of_metadata(meta, str(path))
    else:
        text = config_text(cfg.to_dict() if hasattr(cfg, 'to_dict') else cfg)
        epoch = meta.get('epoch')
        found = portable_encoder(cfg, config=text, epochs=epoch if isinstance(epoch, int) else None)
        found.facts |= facts_of(meta, str(path)) if 'preprocessing' in meta else {}
    found.facts |= known
    return found, str(load_content(found.backbone, content, str(path)))


def _size(cfg: Mapping[str, Any], transform: Mapping[str, Any]) -> tuple[int, int]:
    """Of the crop, the resized image, the images of the source, or the views; ValueError if the config has none of them."""
    part = cfg.get('evaluation') or {}
    views = ((cfg.get('train_dataloader') or {}).get('dataset') or {}).get('views') or {}
    candidates = [transform.get('crop'), transform.get('resize'), (part.get('test') or {}).get('size')]
    candidates += [view.get('size') for view in views.values()]
    found = next((size for size in candidates if size is not None), None)
    if found is None:
        raise ValueError('the config does not tell how large images are: say it, e.g. --size 224.')
    return (int(found), int(found)) if isinstance(found, int) else (int(found[0]), int(found[1]))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def facts_of(meta: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What the header of a file of ours says about its weights: texts of one line, figures and epochs; never its config."""
    found = {key: ' '.join(str(meta[key]).split()) for key in FACTS if key in meta}
    try:
        found |= {key: json.loads(meta[key]) for key in ('metrics', 'epochs') if key in meta}
        fine = isinstance(found.get('epochs', 0), (int, float))
        fine &= all(
            RESULT <= set(result) and isinstance(result['Metrics'], dict) for result in found.get('metrics', [])
        )
    except (TypeError, ValueError, RecursionError):
        fine = False
    if not fine:
        raise CheckpointError(
            f"'{source}' has figures that no card can show: expected a list of dicts with {', '.join(sorted(RESULT))}."
        )
    return found
