"""A pretrained network without the parts that only pretraining needs: images in, features out."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mmkernel.datasets.images import decode, to_array
from mmkernel.zoo.metafile import ModelInfo


class Encoder(nn.Module):
    """h = backbone((x / 255 - mean) / std): (B, C, H, W) uint8, or floating and normalised already, -> (B, out_dim).

    ``transform``: uint8 (H, W, C) -> the view that the network was judged on. ``info``: its row of the zoo. ``cfg``: the
    config that it was built from, which exports need.
    """

    def __init__(
        self, backbone: nn.Module, data_preprocessor: nn.Module, transform: Any, info: ModelInfo, cfg: Any = None
    ) -> None:
        super().__init__()
        self.backbone, self.data_preprocessor = backbone, data_preprocessor
        self.transform, self.info, self.cfg = transform, info, cfg
        self.out_dim = backbone.out_dim

    def forward(self, images: Tensor) -> Tensor:
        """With gradients, and in the mode that the module is in."""
        return self.backbone(self.data_preprocessor.normalize(images))

    @torch.no_grad()
    def extract(self, images: Tensor, stage: str = 'backbone') -> Tensor:
        """Features in eval mode; the door that monitors and benchmarks use. An encoder has no other stage."""
        if stage != 'backbone':
            raise ValueError(
                f"'{self.info.name}' is an encoder: stage is 'backbone', got {stage!r}. part='whole' has a neck."
            )
        training = {module: module.training for module in self.modules()}
        self.eval()
        try:
            return self(images)
        finally:
            for module, mode in training.items():
                module.training = mode


def get_features(model: nn.Module, images: Any, batch_size: int = 64, transform: Any = None) -> Tensor:
    """(N, d) float32 features on the CPU of N images, by a model with ``extract`` (one of ``get_model``, or one trained here).

    Args:
        images: paths, Pillow images or uint8 arrays (H, W, C), one or several, of any size; or a tensor (N, C, H, W), uint8
            or normalised, which is taken as it is.
        transform: of one uint8 array (H, W, C); None: the one of the zoo's row. Tensors are not transformed.
    """
    if isinstance(images, Tensor):
        if images.ndim != 4:
            raise ValueError(f'a tensor of images is (N, C, H, W), got {tuple(images.shape)}.')
        batches: Iterable[Tensor] = images.split(batch_size)
        channels = images.shape[1]
    else:
        views = _views(images, in_channels(model), transform or getattr(model, 'transform', None))
        batches = (torch.stack(views[i : i + batch_size]) for i in range(0, len(views), batch_size))
        channels = views[0].shape[0]
    if channels != in_channels(model):
        raise ValueError(f'the images have {channels} channels, the encoder takes {in_channels(model)}.')
    return torch.cat([model.extract(batch).float().cpu() for batch in batches])


def in_channels(model: nn.Module) -> int:
    """Channels of the images that a model takes: those of its first convolution."""
    return next(m.in_channels for m in model.backbone.modules() if isinstance(m, nn.Conv2d))


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
        raise ValueError(
            f'an image is a path, a Pillow image or a uint8 array (H, W, C), got {type(image).__name__} of '
            f'{array.dtype}, shape {array.shape}.'
        )
    return array
