"""Weights of other libraries become an encoder of ours that describes itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmkernel.checks import check_words
from mmkernel.registry import MODELS
from mmkernel.zoo.encoder import Encoder
from mmkernel.zoo.files import read_checkpoint
from mmkernel.zoo.loading import load_file
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.plain_config import plain_json, without_weights
from mmkernel.zoo.tensor_names import key_maps


def layouts() -> list[str]:
    """What ``--from`` takes; the first five have names as ours below some prefix, which is found."""
    found = ['auto', 'timm', 'torchvision', 'mmdet', 'mmseg', 'hf']
    return [*found, *(name for name in key_maps() if not name.startswith('to_'))]


def import_weights(
    path: str | Path,
    layout: str = 'auto',
    cfg: Mapping[str, Any] | None = None,
    arch: str | None = None,
    channels: int = 3,
    prefix: str | None = None,
    adapt_input: bool = False,
    **facts: Any,
) -> Encoder:
    """The encoder of a file of another library, every tensor filled from it; ``report`` says how.

    Args:
        layout: one of ``layouts()``.
        cfg, arch: what to build: the backbone of a config, or a timm model by name; a folder of the hub says it itself.
        channels: of the images, with ``arch``.
        prefix, adapt_input: see ``load_file``.
    """
    path = Path(path)
    check_words(layout=(layout, layouts()))
    if layout == 'hf' or path.is_dir():
        found, content = _hub_folder(path)
    else:
        if cfg is not None:
            found = Encoder.from_config(cfg)
        elif arch:
            found = _with_timm_settings(dict(type='TIMMBackbone', model_name=arch, in_channels=channels), {})
        else:
            raise ValueError(f"what is in '{path}'? Name its architecture (--arch resnet50) or a config (--config).")
        content = read_checkpoint(path)
    known = layout if layout in key_maps() else None
    found.report = load_file(found.backbone, path, known, prefix, adapt_input, content)
    found.facts = {'source': f'imported from {path.name}', **{k: v for k, v in facts.items() if v is not None}}
    return found


def _hub_folder(path: Path) -> tuple[Encoder, dict[str, Any]]:
    file, weights = path / 'config.json', path / 'model.safetensors'
    if not (file.is_file() and weights.is_file()):
        raise FileNotFoundError(f"'{path}' is no folder of the hub: config.json and model.safetensors are needed.")
    config = plain_json(file.read_text(encoding='utf-8'), str(file))
    try:
        arguments, settings = dict(config.get('model_args') or {}), dict(config.get('pretrained_cfg') or {})
        channels = arguments.pop('in_chans', None) or (settings.get('input_size') or [3])[0]
        arguments.pop('num_classes', None)
        options = dict(type='TIMMBackbone', model_name=config['architecture'], in_channels=channels)
        options |= without_weights({key: value for key, value in arguments.items() if key not in options})
        found = _with_timm_settings(options, settings)
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{file}' does not say how its encoder is built: {error!r}.") from error
    return found, read_checkpoint(weights)


def _with_timm_settings(options: dict[str, Any], given: Mapping[str, Any]) -> Encoder:
    """Preprocessing as timm has it for this model, ImageNet's for most, unless a folder says otherwise."""
    backbone = MODELS.build(dict(options))
    settings = {**backbone.pretrained_cfg, **given}
    channels, (_, height, width) = options['in_channels'], settings['input_size']
    mean, std = (
        v if len(v) == channels else (sum(v) / len(v),) * channels for v in (settings['mean'], settings['std'])
    )
    pixels = dict(mean=mean, std=std, size=(height, width), interpolation=settings.get('interpolation', 'bicubic'))
    pixels['resize'] = round(min(height, width) / settings.get('crop_pct', 1.0))
    pixels['crop'] = height if height == width else (height, width)
    return Encoder(backbone, options, pixels).eval()
