"""One door for files of weights: the encoder in a checkpoint of ours, a published file, or one of any other code base."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmkernel.checks import check_words, words_of
from mmkernel.models import build_model
from mmkernel.registry import TRANSFORMS
from mmkernel.zoo.catalogue import list_models
from mmkernel.zoo.encoder import Encoder, facts_of
from mmkernel.zoo.files import meta_of, read_checkpoint
from mmkernel.zoo.loading import load_file
from mmkernel.zoo.metafile import STAGES, ModelInfo
from mmkernel.zoo.name_rules import key_maps
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.plain_config import TRUST, ConfigTextError, config_inside, plain_json
from mmkernel.zoo.recognition import recognised


def layouts() -> list[str]:
    """Layouts of ``load``; those before 'hf' have names as ours below some prefix, which is found."""
    named = (name for name in key_maps() if not name.startswith('to_'))
    return ['auto', 'timm', 'torchvision', 'mmdet', 'mmseg', 'hf', *named]


def load(
    path: str | Path,
    cfg: Mapping[str, Any] | None = None,
    arch: str | Mapping[str, Any] | None = None,
    layout: str = 'auto',
    channels: int = 3,
    prefix: str | None = None,
    adapt_input: bool = False,
    stage: str = 'backbone',
    pixels: Mapping[str, Any] | None = None,
    **facts: Any,
) -> nn.Module:
    """The encoder of a file of this or another library, in eval mode, every tensor filled from it; ``report`` says how.

    What to build is told by ``cfg`` or ``arch``; without them by the config inside a checkpoint of ours, by the header of a
    published file, by a folder of the hub, or by the shapes of the tensors (``recognised``: ResNets, vision transformers).

    Args:
        path: a file, or a folder of the hub's layout.
        cfg, arch: the backbone of a config; a timm model by name, or ``dict(model_name=..., ...)``, the options of TIMMBackbone.
        layout: one of ``layouts()``.
        channels: of the images, with ``arch``.
        prefix, adapt_input: see ``load_file``.
        stage: 'backbone': an ``Encoder``; 'model': the pretraining model of a checkpoint of ours, with its neck and head.
        pixels: of the images where the file does not tell: ``mean``, ``std``, ``size``, ``resize``, ``crop``, ``interpolation``.
        facts: what is known besides: license, source, ...
    """
    if not Path(path).exists() and str(path) in list_models():
        raise FileNotFoundError(f"'{path}' is not a file but a name of the zoo: mmkernel.get_model('{path}').")
    if isinstance(cfg, (str, Path)):
        file = Path(cfg).suffix in ('.py', '.yml', '.yaml', '.json')
        likely = f'cfg=mmkernel.engine.load_config({str(cfg)!r})' if file else f'arch={str(cfg)!r}'
        raise TypeError(f'cfg is a config, with a model; got {str(cfg)!r}. Did you mean {likely}?')
    path = Path(path)
    check_words(layout=(layout, layouts()), stage=(stage, STAGES))
    if (layout == 'hf' or path.is_dir()) and (described := _of_the_hub(path)):
        found, taken_for, content = described, '', read_checkpoint(path / 'model.safetensors')
    else:
        path = path / 'model.safetensors' if path.is_dir() else path
        content = read_checkpoint(path)
        if stage == 'model':
            return _model(path, content, cfg, prefix)
        found, taken_for = _encoder(path, content, cfg, arch, channels, prefix)
    found.facts |= {key: value for key, value in facts.items() if value is not None}
    if pixels:
        last = found.data_preprocessor.channels_last
        found = Encoder(
            found.backbone, found.options, found.pixels | dict(pixels), found.facts, channels_last=last
        ).eval()
    layout = layout if layout in key_maps() else None
    found.report = load_file(found.backbone, path, layout, prefix, adapt_input, content)
    found.report.taken_for = taken_for
    return found


def _of_the_hub(folder: Path) -> Encoder | None:
    """The encoder that a folder of timm describes; None for one of transformers, whose tensors tell."""
    file = folder / 'config.json'
    if not (file.is_file() and (folder / 'model.safetensors').is_file()):
        raise FileNotFoundError(
            f"'{folder}' is not a folder of the hub's layout: config.json and model.safetensors are needed."
        )
    text = file.read_bytes()
    return None if 'model_type' in plain_json(text, str(file)) else Encoder.from_hub(text, str(file))


def _encoder(
    path: Path, content: dict, cfg: Mapping | None, arch: str | Mapping | None, channels: int, prefix: str | None
) -> tuple[Encoder, str]:
    """(the encoder of a file, with random weights; what it was taken for, where nothing names it)."""
    meta = meta_of(content)
    epochs = meta.get('epoch') if isinstance(meta.get('epoch'), int) else None
    if cfg is not None:
        found = Encoder.from_config(cfg, epochs=epochs)
        found.facts |= facts_of(meta, str(path)) if 'preprocessing' in meta else {}
        return found, ''
    if arch:
        options = dict(model_name=arch) if isinstance(arch, str) else arch
        return Encoder.from_timm(dict(type='TIMMBackbone', in_channels=channels) | options, {}), ''
    if {'preprocessing', 'backbone'} & meta.keys():
        return Encoder.from_header({'name': path.stem, **meta}, str(path)), ''
    if (inside := config_inside(content, str(path))) is not None:
        return _built(path, Encoder.from_config, inside, name=path.stem, epochs=epochs), ''
    network = recognised(content, str(path), prefix)
    found = Encoder.from_timm(network.options, network.settings)
    found.facts['name'] = path.name.split('.')[0]
    return (
        found,
        f'taken for {network.said}; not told by the file: {", ".join(["mean and std (of ImageNet)", *network.assumed])}',
    )


def _model(path: Path, content: dict, cfg: Mapping | None, prefix: str | None) -> nn.Module:
    """The pretraining model of a checkpoint of ours, every tensor filled."""
    values = config_inside(content, str(path)) if cfg is None else cfg
    if values is None:
        raise CheckpointError(
            f"'{path}' holds no config of a pretraining model: stage='model' takes a checkpoint of mmkernel, such as epoch_20.pth, "
            "or its config as cfg=. stage='backbone' takes encoders of any code base."
        )
    cfg = Config(dict(values))
    model = _built(path, build_model, cfg)
    model.init_weights()
    model.transform = TRANSFORMS.build(cfg.evaluation.transform) if 'evaluation' in cfg else None
    model.info = ModelInfo(path.stem, collection='', config=None)
    model.report = load_file(model, path, prefix=prefix, content=content)
    return model


def _built(path: Path, build: Callable, *args: Any, **options: Any) -> Any:
    """What a config inside a file describes; ConfigTextError for what it names that is not here."""
    try:
        return build(*args, **options)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigTextError(f"the config inside '{path}': {words_of(error)} {TRUST}") from error
