"""Operations that change what a patch says: rotations, edges, holes, missing colours. Those of the ablation of Chen et al.

Chen et al., A simple framework for contrastive learning of visual representations, ICML 2020, figure 4; Gaussian noise
stands in ``geometry.py``, published colour policies in ``autoaugment.py``.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from mmkernel.registry import TRANSFORMS

from .operations import Operation, RandomGrayscale
from .pixels import height_width


@TRANSFORMS.register_module()
class RandomRotation(Operation):
    """Turned by one of ``angles``, multiples of 90 degrees counter-clockwise; exact, without interpolation.

    Only square images can be turned by 90 or 270 degrees: a view must not change its size. ValueError for others.
    """

    def __init__(self, angles: tuple[int, ...] = (0, 90, 180, 270), probability: float = 1.0) -> None:
        super().__init__(probability)
        if not angles or any(angle % 90 for angle in angles):
            raise ValueError(f'RandomRotation: angles must be multiples of 90, at least one, got {angles}')
        self.turns = [int(angle) // 90 % 4 for angle in angles]

    def sample(self, rng: Generator, height: int, width: int) -> int:
        """Quarter turns."""
        turns = self.turns[int(rng.integers(len(self.turns)))]
        if turns % 2 and height != width:
            raise ValueError(
                f'RandomRotation: an image of {height} x {width} would change its size when turned by {90 * turns} degrees. '
                'Crop to a square first, or use angles=(0, 180).'
            )
        return turns

    def apply(self, image: np.ndarray, params: int) -> np.ndarray:
        return np.rot90(image, params)


@TRANSFORMS.register_module()
class Sobel(Operation):
    """min(255, |gradient| of the luminance) in all channels, by the 3x3 filters of Sobel, borders reflected.

    One channel is its own luminance; of another number than 1 or 3, each channel alone is filtered.
    """

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__(probability)

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        gray = RandomGrayscale().apply(image, True)
        plane = gray[..., :1] if image.shape[2] == 3 else gray
        # OpenCV drops a single channel
        across, down = (cv2.Sobel(plane, cv2.CV_32F, *order).reshape(plane.shape) for order in ((1, 0), (0, 1)))
        edges = np.minimum(np.rint(np.hypot(across, down)), 255).astype(np.uint8)
        return np.broadcast_to(edges, image.shape)


@TRANSFORMS.register_module()
class Cutout(Operation):
    """A square of ``size`` times the short side, centred at any pixel and cut off at the borders, set to ``fill``.

    DeVries and Taylor, arXiv 1708.04552. A box of random area and shape is ``RandomErasing``.
    """

    def __init__(self, size: float = 0.5, fill: int = 0, probability: float = 0.5) -> None:
        super().__init__(probability)
        if not 0 < size <= 1:
            raise ValueError(f'Cutout: size is a fraction of the short side in (0, 1], got {size}')
        self.size, self.fill = size, fill

    def sample(self, rng: Generator, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, bottom, left, right."""
        side = max(round(self.size * min(height, width)), 1)
        top, left = int(rng.integers(height)) - side // 2, int(rng.integers(width)) - side // 2
        return max(top, 0), min(top + side, height), max(left, 0), min(left + side, width)

    def apply(self, image: np.ndarray, params: tuple[int, int, int, int]) -> np.ndarray:
        top, bottom, left, right = params
        image = image.copy()
        image[top:bottom, left:right] = self.fill
        return image


@TRANSFORMS.register_module()
class ColorDrop(Operation):
    """All but ``keep`` of the three colour channels set to ``fill``. Does nothing unless there are three channels.

    Doersch et al., ICCV 2015; on patches Henaff et al., ICML 2020: without colour, aberration does not give positions away.
    """

    def __init__(self, keep: int = 1, fill: int = 128, probability: float = 1.0) -> None:
        super().__init__(probability)
        if keep not in (1, 2):
            raise ValueError(f'ColorDrop: keep 1 or 2 of three channels, got {keep}')
        self.keep, self.fill = keep, fill

    def sample(self, rng: Generator, height: int, width: int) -> list[int]:
        """Channels dropped."""
        return rng.random(3).argsort(kind='stable')[self.keep :].tolist()

    def apply(self, image: np.ndarray, params: list[int]) -> np.ndarray:
        if image.shape[2] != 3:
            return image
        image = image.copy()
        image[..., params] = self.fill
        return image


@TRANSFORMS.register_module()
class PaddedCrop(Operation):
    """A random part of ``size`` in the middle of an image that keeps its size, the rest ``fill``.

    van den Oord et al., 2018: of each 64 px patch a 60 px part, so that borders do not give the neighbour away.
    """

    def __init__(self, size: int | tuple[int, int], fill: int = 0, probability: float = 1.0) -> None:
        super().__init__(probability)
        self.size, self.fill = height_width(size), fill

    def sample(self, rng: Generator, height: int, width: int) -> tuple[int, int]:
        """Top and left of the part."""
        free = height - self.size[0], width - self.size[1]
        if min(free) < 0:
            raise ValueError(f'PaddedCrop: no part of {self.size} in an image of {(height, width)}; make size smaller')
        return int(rng.integers(free[0] + 1)), int(rng.integers(free[1] + 1))

    def apply(self, image: np.ndarray, params: tuple[int, int]) -> np.ndarray:
        (height, width), (top, left) = self.size, params
        padded = np.full_like(image, self.fill)
        below, beside = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        padded[below : below + height, beside : beside + width] = image[top : top + height, left : left + width]
        return padded
