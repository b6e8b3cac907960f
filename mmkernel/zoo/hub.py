"""From a name to a model with verified weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dist import is_main_process
from torch import nn

from mmkernel.registry import MODELS, TRANSFORMS
from mmkernel.zoo.catalogue import config_of, model_info
from mmkernel.zoo.download import download
from mmkernel.zoo.encoder import Encoder
from mmkernel.zoo.files import read_checkpoint
from mmkernel.zoo.key_map import key_maps
from mmkernel.zoo.metafile import ModelInfo, WeightsFile
from mmkernel.zoo.pins import console
from mmkernel.zoo.places import root
from mmkernel.zoo.recognise import load_content

PARTS = {'encoder': ('backbone', 'model'), 'whole': ('model',)}  # which files serve, the smaller first


def get_model(
    name: str,
    pretrained: bool = True,
    part: str = 'encoder',
    cfg_options: Mapping[str, Any] | None = None,
    adapt_input: bool = False,
    progress: bool = True,
) -> nn.Module:
    """The model of a row of the zoo, by default with its published weights, every tensor of which must fit.

    Args:
        name: one of ``list_models()``.
        pretrained: False: as it is before training; nothing is fetched.
        part: 'encoder': ``Encoder``, in eval mode; 'whole': the pretraining model, to go on with.
        cfg_options: changes of the config, {'model.backbone.drop_path_rate': 0.1}.
        adapt_input: with cfg_options={'model.backbone.in_channels': n}, make the filters of the first convolution for n channels
            from those for 3 (``stem.adapted``); the mean and std of n channels are yours to give (data_preprocessor.mean, .std).
        progress: a bar while downloading, on a terminal.

    Errors: UnknownModelError with the nearest names; ValueError for a row without public weights, or whose files lack the
    part; DownloadError with what to do by hand; CheckpointError for weights of another architecture.
    """
    if part not in PARTS:
        raise ValueError(f"part is 'encoder' or 'whole', got {part!r}.")
    info = model_info(name)
    file = _file(info, part) if pretrained else None
    cfg = config_of(info)
    if cfg_options:
        cfg.merge_from_dict(dict(cfg_options))
    model = _build(cfg, info, part)
    if file is not None:
        path = download(info, file.holds, progress=progress)
        state = key_maps()[file.key_map or 'mmkernel'].apply(read_checkpoint(path), str(path))
        if part == 'encoder':
            state = {key: value for key, value in state.items() if key.startswith('backbone.')}
        report = load_content(model, state, str(path), adapt_input=adapt_input)
        if is_main_process():
            console.print(f'{name}: {report} ({path})', soft_wrap=True)
    return model


def _file(info: ModelInfo, part: str) -> WeightsFile:
    found = next((file for holds in PARTS[part] if (file := info.file(holds))), None)
    if found is not None or info.config is None:  # the latter: config_of says what these files are good for
        return found or info.files[0]
    if info.file('backbone'):
        raise ValueError(
            f"The weights of '{info.name}' are those of its encoder; the rest would stay random. Use part='encoder', or "
            'pretrained=False.'
        )
    raise ValueError(
        f"No weights of '{info.name}' are public. pretrained=False builds it; 'mmkernel train {root() / info.config}' trains it."
    )


def _build(cfg: Any, info: ModelInfo, part: str) -> nn.Module:
    transform = TRANSFORMS.build(cfg.evaluation.transform) if 'evaluation' in cfg else None
    if part == 'whole':
        from mmkernel.models import build_model  # brings timm: seconds that a list of names need not pay

        model = build_model(cfg)
        model.init_weights()
        model.transform, model.info = transform, info
        return model
    preprocessor = MODELS.build(cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor'))
    return Encoder(MODELS.build(cfg.model.backbone), preprocessor, transform, info, cfg).eval()
