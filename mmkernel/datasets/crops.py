"""Crops: they decide the size of a view."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.random import Generator

from mmkernel.checks import check_numbers
from mmkernel.registry import TRANSFORMS

from .operations import Operation
from .pixels import center_crop, height_width, resampling, resize, resize_short_side

Box = tuple[int, int, int, int]  # top, left, height, width


class Crop(Operation):
    """Ends at ``size`` (one number: a square)."""

    def __init__(self, size: int | tuple[int, int], interpolation: str) -> None:
        super().__init__()
        self.size, self.interpolation = height_width(size), interpolation
        resampling(interpolation)

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
        check_numbers('RandomResizedCrop', scale=scale, ratio=ratio)
        for name, (low, high) in (('scale', scale), ('ratio', ratio)):
            if not 0 < low <= high:
                raise ValueError(f'RandomResizedCrop: {name} must be (low, high) with 0 < low <= high, got {low, high}')
        self.scale, self.ratio = tuple(scale), tuple(ratio)

    def sample(self, rng: Generator, height: int, width: int) -> Box:
        log_low, log_high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(log_low, log_high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        h, w = height, width
        if width < height * self.ratio[0]:
            h = round(width / self.ratio[0])
        elif width > height * self.ratio[1]:
            w = round(height * self.ratio[1])
        return (height - h) // 2, (width - w) // 2, h, w

    def apply(self, image: np.ndarray, params: Box) -> np.ndarray:
        top, left, height, width = params
        return resize(image[top : top + height, left : left + width], *self.size, self.interpolation)


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
    """

    def __init__(self, resize: int | None = 256, crop: int | None = 224, interpolation: str = 'bicubic') -> None:
        resampling(interpolation)
        check_numbers('CenterView', whole=True, none=True, resize=resize, crop=crop)
        self.resize, self.crop, self.interpolation = resize, crop, interpolation

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if self.resize is not None:
            image = resize_short_side(image, self.resize, self.interpolation)
        return image if self.crop is None else center_crop(image, *height_width(self.crop))
