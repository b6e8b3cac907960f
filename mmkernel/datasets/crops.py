"""Crops and resizes, those of Pillow and torchvision: they decide the size of a view."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from PIL import Image

from mmkernel.checks import check_numbers, check_words
from mmkernel.registry import TRANSFORMS

from .operations import Operation, height_width, interval, with_pillow

Box = tuple[int, int, int, int]  # top, left, height, width


RESAMPLING = {name: Image.Resampling[name.upper()] for name in ('nearest', 'bilinear', 'bicubic', 'lanczos')}


def resize(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Antialiased resize, equal to Pillow's; (H, W, C) -> (height, width, C)."""
    if image.shape[:2] == (height, width):
        return image  # Pillow copies in this case
    return with_pillow(image, lambda plane: plane.resize((width, height), RESAMPLING[interpolation]))


def resize_fast(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """The same up to rounding, several times faster; what torch has not (nearest as Pillow means it, lanczos) by Pillow."""
    if interpolation not in ('bilinear', 'bicubic') or image.shape[:2] == (height, width):
        return resize(image, height, width, interpolation)
    if max(*image.shape[:2], height, width) <= 32:  # two products of matrices; torch's function takes longer to begin
        return _resize_rows(_resize_rows(image, width, interpolation), height, interpolation)
    if not image.flags.writeable or min(image.strides) < 0:  # as of a mirrored image, or BGR read backwards
        image = image.copy()  # torch takes neither
    pixels = torch.from_numpy(image).unsqueeze(0).permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, (height, width), mode=interpolation, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


@lru_cache(4096)
def _weights(before: int, after: int, interpolation: str) -> np.ndarray:
    """(after, before): what each of ``before`` pixels in a row gives to each of ``after``."""
    single = torch.eye(before)[None, None]
    return F.interpolate(single, (after, before), mode=interpolation, antialias=True)[0, 0].numpy()


def _resize_rows(image: np.ndarray, after: int, interpolation: str) -> np.ndarray:
    """(H, W, C) -> (after, H, C): resized along the rows, rounded, and rows and columns exchanged."""
    height, before, channels = image.shape
    columns = image.transpose(1, 0, 2).astype(np.float32, order='C').reshape(before, -1)
    resized = _weights(before, after, interpolation) @ columns
    return cv2.addWeighted(resized, 1, resized, 0, 0, dtype=cv2.CV_8U).reshape(after, height, channels)


def resize_short_side(image: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    """The short side becomes ``size``, the long one floor(size * long / short), as torchvision's ``Resize(size)``."""
    height, width = image.shape[:2]
    if height <= width:
        return resize(image, size, int(size * width / height), interpolation)
    return resize(image, int(size * height / width), size, interpolation)


def center_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle (height, width), zero-padded where the image is smaller, as torchvision's ``CenterCrop``."""
    missing_h, missing_w = max(height - image.shape[0], 0), max(width - image.shape[1], 0)
    if missing_h or missing_w:
        padding = ((missing_h // 2, (missing_h + 1) // 2), (missing_w // 2, (missing_w + 1) // 2), (0, 0))
        image = np.pad(image, padding)
    top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]


class Crop(Operation):
    """Ends at ``size`` (one number: a square)."""

    def __init__(self, size: int | tuple[int, int], interpolation: str) -> None:
        super().__init__()
        self.size = height_width(size)
        check_words(interpolation=(interpolation, RESAMPLING))
        self.interpolation = interpolation

    def size_after(self, height: int, width: int) -> tuple[int, int]:
        return self.size


@TRANSFORMS.register_module()
class RandomResizedCrop(Crop):
    """A box of area U(scale) * HW and log-uniform width / height in ``ratio``, resized to ``size``.

    Szegedy et al., CVPR 2015, as in torchvision: ten tries, then the largest central box within ``ratio``.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = 'bicubic',
    ) -> None:
        super().__init__(size, interpolation)
        self.scale = interval('RandomResizedCrop', positive=True, scale=scale)
        self.ratio = interval('RandomResizedCrop', positive=True, ratio=ratio)
        self.log_ratio = math.log(self.ratio[0]), math.log(self.ratio[1])

    def sample(self, rng: Generator, height: int, width: int) -> Box:
        (low, high), (log_low, log_high) = self.scale, self.log_ratio
        for _ in range(10):  # low + (high - low) rng.random() is rng.uniform(low, high), in a third of the time
            area = height * width * (low + (high - low) * rng.random())
            ratio = math.exp(log_low + (log_high - log_low) * rng.random())
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        h, w = height, width
        if width < height * self.ratio[0]:
            h = round(width / self.ratio[0])
        elif width > height * self.ratio[1]:
            w = round(height * self.ratio[1])
        return (height - h) // 2, (width - w) // 2, h, w

    def apply(self, image: np.ndarray, params: Box, resize: Callable[..., np.ndarray] = resize_fast) -> np.ndarray:
        top, left, height, width = params
        return resize(image[top : top + height, left : left + width], *self.size, self.interpolation)

    def exact(self, image: np.ndarray, params: Box) -> np.ndarray:
        return self.apply(image, params, resize)


@TRANSFORMS.register_module()
class CenterCrop(Crop):
    """Short side to ``resize`` (None: as it is), then the middle ``size``; nothing random."""

    def __init__(self, size: int | tuple[int, int], resize: int | None = None, interpolation: str = 'bicubic') -> None:
        super().__init__(size, interpolation)
        check_numbers('CenterCrop', whole=True, none=True, resize=resize)
        self.resize = resize

    def apply(self, image: np.ndarray, params: Any = None) -> np.ndarray:
        if self.resize is not None:
            image = resize_short_side(image, self.resize, self.interpolation)
        return center_crop(image, *self.size)


@TRANSFORMS.register_module()
class CenterView:
    """The one view of an image for evaluation: short side to ``resize``, then the middle ``crop``; None skips either.

    Callable: uint8 (H, W, C) -> uint8 (H', W', C). Both None: the image as it is (then all must have one size).
    Always by Pillow: published accuracies were measured with its pixels.
    """

    def __init__(self, resize: int | None = 256, crop: int | None = 224, interpolation: str = 'bicubic') -> None:
        check_numbers('CenterView', whole=True, none=True, resize=resize, crop=crop)
        self.resize, self.crop = resize, crop
        check_words(interpolation=(interpolation, RESAMPLING))
        self.interpolation = interpolation

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if self.resize is not None:
            image = resize_short_side(image, self.resize, self.interpolation)
        return image if self.crop is None else center_crop(image, *height_width(self.crop))
