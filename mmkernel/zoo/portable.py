"""An encoder with all that someone needs who uses it elsewhere: how it is built, what images it wants, where it comes from."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mmkernel
from mmkernel.registry import MODELS
from mmkernel.zoo.files import CheckpointError, read_checkpoint
from mmkernel.zoo.plain_config import ConfigTextError, check_types
from mmkernel.zoo.recognise import load_content

# Lines of a config that tell where it ran, and nothing about what was trained.
OF_ONE_MACHINE = re.compile(r'^(work_dir|load_from|resume|launcher|log_file) = [^\n(\[{]*\n', re.MULTILINE)
# Options that would fetch or read weights from another place than the file.
ELSEWHERE = ('pretrained', 'checkpoint_path', 'pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir')
FACTS = ('name', 'license', 'source', 'config', 'metrics', 'epochs', 'trained_on', 'note')


@dataclass(frozen=True)
class Preprocessing:
    """(x / 255 - mean) / std of RGB or grey images whose short side became ``resize`` and whose middle is ``crop``; None: as is."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]  # height and width that the network was judged with
    resize: int | None = None
    crop: int | tuple[int, int] | None = None
    interpolation: str = 'bicubic'

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
            facts['config'] = OF_ONE_MACHINE.sub('', facts['config'])
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
    options = {key: value for key, value in cfg['model']['backbone'].items() if key not in ELSEWHERE}
    options = copy.deepcopy(options)
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
    try:
        options, pixels = json.loads(meta['backbone']), json.loads(meta['preprocessing'])
        check_types(options, source)
        options = {key: value for key, value in options.items() if key not in ELSEWHERE}
        pixels = {key: _plain(value) for key, value in pixels.items()}
        facts = {key: _value(key, meta[key]) for key in FACTS if key in meta}
        return Portable(MODELS.build(dict(options)).eval(), options, Preprocessing(**pixels), facts)
    except ConfigTextError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"'{source}' does not say how its encoder is built ({error!r}): name its config (--config)."
        ) from error


def read_portable(path: str | Path, cfg: Mapping[str, Any] | None = None, **facts: Any) -> tuple[Portable, str]:
    """(encoder, report of loading) of a checkpoint of any layout; ``cfg`` None: the file is one of ours and describes itself."""
    content = read_checkpoint(path)
    meta = content.get('meta') or {}
    known = {key: value for key, value in facts.items() if value is not None}
    if cfg is None or 'preprocessing' in meta:
        found = of_metadata(meta, str(path))
    else:
        found = portable_encoder(cfg, config=meta.get('config'), epochs=meta.get('epoch'))
    found.facts = {**found.facts, **known}
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


def _value(key: str, text: str) -> Any:
    return json.loads(text) if key in ('metrics', 'epochs') else text
