"""Encoders by a name of the zoo; features of images."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from PIL import Image
from torch import Tensor, nn

from mmkernel.checks import check_words
from mmkernel.datasets.images import decode, to_array
from mmkernel.models import build_model
from mmkernel.registry import MODELS, TRANSFORMS
from mmkernel.zoo.catalogue import config_of, list_models, model_info, root
from mmkernel.zoo.download import download
from mmkernel.zoo.encoder import Encoder
from mmkernel.zoo.loading import load_file
from mmkernel.zoo.metafile import STAGES, ModelInfo, WeightsFile
from mmkernel.zoo.network_options import without_weights
from mmkernel.zoo.opening import load
from mmkernel.zoo.pins import console


def get_model(
    name: str | Path,
    pretrained: bool = True,
    stage: str = 'backbone',
    cfg_options: Mapping[str, Any] | None = None,
    adapt_input: bool = False,
    progress: bool = True,
) -> nn.Module:
    """The model of a row of the zoo, by default with its published weights, every tensor of which must fit; or that of a file.

    Args:
        name: one of ``list_models()``, or a file that ``load`` takes.
        pretrained: False: as it is before training; nothing is fetched.
        stage: 'backbone': an ``Encoder``, in eval mode; 'model': the pretraining model, to go on with.
        cfg_options: changes of the config, {'model.backbone.drop_path_rate': 0.1}.
        adapt_input: with cfg_options={'model.backbone.in_channels': n}, make the filters of the first convolution for n channels
            from those for 3 (``loading.adapted``); the mean and std of n channels are yours to give (data_preprocessor.mean, .std).
        progress: a bar while downloading, on a terminal.

    Errors: UnknownModelError with the nearest names; ValueError for a row without public weights, or whose files lack the
    stage; DownloadError with what to do by hand; CheckpointError for weights of another architecture.
    """
    check_words(stage=(stage, STAGES))
    if is_file(name):
        if cfg_options or not pretrained:
            raise ValueError(
                f"'{name}' is a file, whose weights say what it is: cfg_options and pretrained=False go with a name."
            )
        return load(name, adapt_input=adapt_input, stage=stage)
    info = model_info(str(name))
    file = _file(info, stage) if pretrained else None
    cfg = config_of(info)
    cfg.merge_from_dict(dict(cfg_options or {}))
    if stage == 'backbone':
        facts = {key: getattr(info, key) for key in ('name', 'license', 'source', 'note')}
        # where a file fills all of it, nothing else is fetched
        backbone = without_weights(cfg.model.backbone) if file else cfg.model.backbone
        model = Encoder.from_config(cfg, MODELS.build(backbone), info, **facts)
    else:
        model = build_model(cfg)
        model.init_weights()
        model.transform = TRANSFORMS.build(cfg.evaluation.transform) if 'evaluation' in cfg else None
        model.info = info
    if file is not None:
        path = download(info, file.stage, progress=progress)
        filled, prefix = (model.backbone, 'backbone.') if stage == 'backbone' else (model, None)
        layout = file.key_map or 'mmkernel'
        report = load_file(filled, path, layout, prefix, adapt_input)
        if is_main_process():
            console.print(f'{name}: {report} ({path})', soft_wrap=True)
    return model


def is_file(name: str | Path) -> bool:
    """Whether ``name`` is a path, not a name of the zoo: these have no ending, and stand in no folder."""
    path = Path(name)
    return not isinstance(name, str) or (
        name not in list_models() and (path.exists() or path.name != name or '.' in name)
    )


def _file(info: ModelInfo, stage: str) -> WeightsFile:
    found = next((file for each in STAGES[STAGES.index(stage) :] if (file := info.file(each))), None)
    if found is not None or info.config is None:  # the latter: config_of says what these files are good for
        return found or info.files[0]
    said = f"No weights of '{info.name}' are public. pretrained=False builds it; 'mmkernel train {root() / info.config}' trains it."
    if info.file('backbone'):
        said = f"'{info.name}' has weights of its backbone only; the rest would stay random. Use stage='backbone'."
    raise ValueError(said)


def get_features(model: nn.Module, images: Any, batch_size: int = 64, transform: Any = None) -> Tensor:
    """(N, d) float32 features on the CPU of N images, by a model with ``extract`` (one of ``get_model``, or one trained here).

    Args:
        images: paths, Pillow images or uint8 arrays (H, W, C), one or several, of any size; or a tensor (N, C, H, W), uint8
            or normalised, which is taken as it is.
        transform: of one uint8 array (H, W, C); None: the one of the zoo's row. Tensors are not transformed.
    """
    first = next(module for module in model.backbone.modules() if isinstance(module, nn.Conv2d))
    channels = first.in_channels
    if isinstance(images, Tensor):
        if images.ndim != 4:
            raise ValueError(f'a tensor of images is (N, C, H, W), got {tuple(images.shape)}.')
        given, batches = images.shape[1], images.split(batch_size)
    else:
        views = _views(images, channels, transform or getattr(model, 'transform', None))
        given = views[0].shape[0]
        batches = (torch.stack(views[i : i + batch_size]) for i in range(0, len(views), batch_size))
    if given != channels:
        raise ValueError(f'the images have {given} channels, the encoder takes {channels}.')
    return torch.cat([model.extract(batch).float().cpu() for batch in batches])


def _views(images: Any, channels: int, transform: Any) -> list[Tensor]:
    single = isinstance(images, (str, PathLike, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim == 3)
    arrays = [_array(image, channels) for image in ([images] if single else images)]
    if not arrays:
        raise ValueError('there are no images.')
    views = [torch.from_numpy(np.array((transform(a) if transform else a).transpose(2, 0, 1))) for a in arrays]
    sizes = {tuple(view.shape) for view in views}
    if len(sizes) > 1:
        raise ValueError(
            f'the images have different sizes, {sorted(sizes)}: give a transform, e.g. '
            "mmkernel.TRANSFORMS.build(dict(type='CenterView', resize=256, crop=224))."
        )
    return views


def _array(image: Any, channels: int) -> np.ndarray:
    mode = 'L' if channels == 1 else 'RGB'
    if isinstance(image, (str, PathLike)):
        return decode(image, str(image), mode)
    if isinstance(image, Image.Image):
        return to_array(image, mode)
    array: np.ndarray = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3:
        given = f'{type(image).__name__} of {array.dtype}, shape {array.shape}'
        raise ValueError(f'an image is a path, a Pillow image or a uint8 array (H, W, C), got {given}.')
    return array
