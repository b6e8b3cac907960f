"""A pretrained image encoder with its preprocessing, the options that build it, and facts about its weights."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import mmkernel
from mmkernel.limits import DAMAGED
from mmkernel.models.feature_extractor import FeatureExtractor
from mmkernel.models.image_sizes import evaluation_size, view_sizes
from mmkernel.registry import MODELS, TRANSFORMS
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.metafile import RESULT, ModelInfo
from mmkernel.zoo.network_options import of_this_file, without_weights
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.plain_config import ConfigTextError, plain_config, plain_json, without_machine

LARGEST = 1 << 14  # pixels of a side
FACTS = ('name', 'license', 'source', 'trained_on', 'note')


class Encoder(FeatureExtractor, nn.Module):
    """h = backbone((x / 255 - mean) / std): (B, C, H, W) uint8, or floating and normalised already, -> (B, out_dim).

    The zoo returns it, benchmarks measure it and exports write it. Its state dict is that of the backbone alone.

    Args:
        backbone: the network; ``options`` build it again: ``MODELS.build(options)``.
        pixels: mean and std (0..1 scale, one number per channel), ``size`` (height and width that the network was evaluated
            with, None: not known), and ``resize``, ``crop`` and ``interpolation`` of CenterView.
        facts: name, license, source, trained_on, note, config (a text), metrics, epochs, ...
        info: its row of the zoo; None: a row with its name alone.
        channels_last: memory layout of the images, see ViewPreprocessor.

    Attributes: ``data_preprocessor``, a ViewPreprocessor; ``transform``, a CenterView, uint8 (H, W, C) -> the view that the
    network was evaluated on; ``report``: a LoadReport, None if nothing was loaded.
    """

    def __init__(
        self, backbone: nn.Module, options: Mapping[str, Any], pixels: Mapping[str, Any], facts: Mapping[str, Any] | None = None,
        info: ModelInfo | None = None, channels_last: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone, self.options, self.facts = backbone, dict(options), dict(facts or {})
        self.pixels = _plain_pixels(**pixels)
        statistics = dict(mean=self.pixels['mean'], std=self.pixels['std'], channels_last=channels_last)
        self.data_preprocessor = MODELS.build(dict(type='ViewPreprocessor', **statistics))
        view = {key: self.pixels[key] for key in ('resize', 'crop', 'interpolation')}
        self.transform = TRANSFORMS.build(dict(type='CenterView', **view))
        self.info = info or ModelInfo(str(self.facts.get('name') or 'encoder'), collection='', config=None)
        self.report = None

    @classmethod
    def from_config(
        cls, cfg: Mapping[str, Any], backbone: nn.Module | None = None, info: ModelInfo | None = None, **facts: Any
    ) -> 'Encoder':
        """The encoder of a config, in eval mode; ``backbone`` None: built, with random weights. Its config is one of its facts."""
        options = copy.deepcopy(without_weights(cfg['model']['backbone']))
        backbone = MODELS.build(dict(options)) if backbone is None else backbone
        given = cfg.get('data_preprocessor') or cfg['model'].get('data_preprocessor') or {}
        view = (cfg.get('evaluation') or {}).get('transform') or {}
        pixels = dict(mean=given.get('mean', (0.0,)), std=given.get('std', (1.0,)), size=_size(cfg))
        if len(pixels['mean']) == 1:
            pixels |= {key: list(pixels[key]) * int(options.get('in_channels', 3)) for key in ('mean', 'std')}
        pixels |= {key: view[key] for key in ('resize', 'crop', 'interpolation') if key in view}
        values = cfg.to_dict() if hasattr(cfg, 'to_dict') else cfg
        facts = {'config': config_text(without_machine(values)), **facts}
        options = json.loads(json.dumps(options))
        return cls(backbone, options, pixels, facts, info, bool(given.get('channels_last'))).eval()

    @classmethod
    def from_header(cls, meta: Mapping[str, str], source: str) -> 'Encoder':
        """The encoder that the header of a published file describes (see ``metadata``), with random weights."""
        facts = facts_of(meta, source)
        if 'config' in meta:
            facts['config'] = config_text(without_machine(plain_config(meta['config'], source)))
        try:
            options, pixels = (plain_json(meta[key], source) for key in ('backbone', 'preprocessing'))
            options = of_this_file(options)
            found = cls(MODELS.build(dict(options)), options, pixels, facts).eval()
            if len(found.pixels['mean']) != found.channels:
                raise ValueError(f'mean of {len(found.pixels["mean"])} channels, images of {found.channels}')
            return found
        except ConfigTextError:
            raise
        except DAMAGED as error:
            raise CheckpointError(
                f"'{source}' does not say how its encoder is built ({error!r}): name its config (--config) or its architecture "
                '(--arch resnet50).'
            ) from error

    @classmethod
    def from_hub(cls, text: bytes, source: str) -> 'Encoder':
        """The encoder that ``config.json`` of a folder of the hub describes, with random weights."""
        config = plain_json(text, source)
        try:
            arguments, settings = dict(config.get('model_args') or {}), dict(config.get('pretrained_cfg') or {})
            channels = arguments.pop('in_chans', None) or (settings.get('input_size') or [3])[0]
            arguments.pop('num_classes', None)
            options = dict(type='TIMMBackbone', model_name=config['architecture'], in_channels=channels)
            options |= {key: value for key, value in arguments.items() if key not in options}
            return cls.from_timm(of_this_file(options), settings)
        except DAMAGED as error:
            raise CheckpointError(f"'{source}' does not say how its encoder is built: {error!r}.") from error

    @classmethod
    def from_timm(cls, options: Mapping[str, Any], settings: Mapping[str, Any]) -> 'Encoder':
        """The encoder of a TIMMBackbone, with the preprocessing of ``settings``, else the one that timm has for this model."""
        backbone = MODELS.build(dict(options))
        side = options.get('img_size')
        own = {'input_size': (0, *((side, side) if isinstance(side, int) else side))} if side else {}
        settings = {**backbone.pretrained_cfg, **own, **settings}
        channels, size = options['in_channels'], (settings['input_size'] or ())[1:]  # (): any, known to nobody
        mean, std = (
            v if len(v) == channels else (sum(v) / len(v),) * channels for v in (settings['mean'], settings['std'])
        )
        pixels = dict(mean=mean, std=std, size=size or None, interpolation=settings.get('interpolation', 'bicubic'))
        if size:
            pixels['resize'] = round(min(size) / settings.get('crop_pct', 1.0))
            pixels['crop'] = size[0] if size[0] == size[1] else size
        return cls(backbone, options, pixels).eval()

    @property
    def out_dim(self) -> int:
        return self.backbone.out_dim

    @property
    def channels(self) -> int:
        return int(self.options.get('in_channels', 3))

    def forward(self, images: Tensor) -> Tensor:
        """Features with gradients, in the current mode (train or eval) of the module."""
        return self.backbone(self.data_preprocessor.normalize(images))

    def images(self, count: int = 2, seed: int = 0) -> Tensor:
        """uint8 noise (count, C, H, W), the same on every machine. Exports are compared on it."""
        if self.pixels['size'] is None:
            raise ValueError('the config does not give the size of images: pass it, e.g. --size 224.')
        shape = (count, self.channels, *self.pixels['size'])
        return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)

    def metadata(self) -> dict[str, str]:
        """Texts for the header of a safetensors file; ``from_header`` reads them."""
        facts = {k: value if isinstance(value, str) else json.dumps(value) for k, value in self.facts.items() if value}
        described = dict(backbone=json.dumps(self.options), preprocessing=json.dumps(self.pixels))
        return dict(format='pt', mmkernel=mmkernel.__version__, **described, **facts)  # 'pt': for other readers


def _plain_pixels(
    mean: Any, std: Any, size: Any = None, resize: Any = None, crop: Any = None, interpolation: str = 'bicubic'
) -> dict[str, Any]:
    """``pixels`` as plain values. ViewPreprocessor and CenterView check the rest."""
    if size is not None and not (len(size) == 2 and all(type(n) is int and 0 < n <= LARGEST for n in size)):
        raise ValueError(f'size is height and width in pixels, 1 to {LARGEST}; got {size}.')
    size, crop = (tuple(value) if isinstance(value, (list, tuple)) else value for value in (size, crop))
    mean, std = (tuple(float(v) for v in values) for values in (mean, std))
    return dict(mean=mean, std=std, size=size, resize=resize, crop=crop, interpolation=interpolation)


def _size(cfg: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the images that are evaluated, or of the first views; None: not known."""
    return evaluation_size(cfg) or next(iter(view_sizes(cfg)), None)


def facts_of(meta: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Facts from the header of a published file: texts of one line, metrics and epochs; not the config."""
    found = {key: ' '.join(str(meta[key]).split()) for key in FACTS if key in meta}
    try:
        found |= {key: json.loads(meta[key]) for key in ('metrics', 'epochs') if key in meta}
        fine = isinstance(found.get('epochs', 0), (int, float))
        fine &= all(RESULT <= set(one) and isinstance(one['Metrics'], dict) for one in found.get('metrics', []))
    except (AttributeError, TypeError, ValueError, RecursionError):
        fine = False
    if not fine:
        expected = f'expected a list of dicts with {", ".join(sorted(RESULT))}'
        raise CheckpointError(f"'{source}' has figures that no card can show: {expected}.")
    return found
