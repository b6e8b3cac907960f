"""Operations on pixel positions: affine maps, quarter turns, erased boxes, a crop in a frame. Any number of channels."""

import math

import cv2
import numpy as np
from numpy.random import Generator

from mmkernel.checks import check_numbers, check_words
from mmkernel.registry import TRANSFORMS

from .operations import Operation, height_width, interval

BORDERS = dict(constant=cv2.BORDER_CONSTANT, edge=cv2.BORDER_REPLICATE, reflect=cv2.BORDER_REFLECT_101)


@TRANSFORMS.register_module()
class RandomAffine(Operation):
    """x -> centre + shift + R(angle) S(shear) scale (x - centre), bilinear.

    degrees: angle from U(-d, d), clockwise on the screen; shear: horizontal, in degrees, from U(-s, s);
    translate: shift from U(-t, t) of the side, each axis alone; scale: log-uniform in (low, high).
    border: 'constant' (``fill``), 'edge' or 'reflect' gives the pixels from outside.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        border: str = 'constant',
        fill: int = 0,
        probability: float = 1.0,
    ) -> None:
        super().__init__(probability)
        check_numbers('RandomAffine', zero=True, degrees=degrees, translate=translate, shear=shear)
        if shear >= 90:
            raise ValueError(f'RandomAffine: shear={shear}; expected less than 90 degrees')
        self.scale = interval('RandomAffine', positive=True, scale=scale)
        self.degrees, self.translate, self.shear = degrees, translate, shear
        check_words('RandomAffine', border=(border, BORDERS))
        self.border, self.fill = BORDERS[border], fill

    def sample(self, rng: Generator, height: int, width: int) -> tuple[float, ...]:
        """Angle and shear in radians, scale, shift right and down in pixels."""
        angle, shear, right, down = (2 * rng.random(4) - 1).tolist()
        log_low, log_high = math.log(self.scale[0]), math.log(self.scale[1])
        scale = math.exp(log_low + (log_high - log_low) * rng.random())
        shift = right * self.translate * width, down * self.translate * height
        return math.radians(angle * self.degrees), math.radians(shear * self.shear), scale, *shift

    def apply(self, image: np.ndarray, params: tuple[float, ...]) -> np.ndarray:
        angle, shear, scale, right, down = params
        height, width = image.shape[:2]
        cos, sin, slope = scale * math.cos(angle), scale * math.sin(angle), math.tan(shear)
        # rows of R S scale; y points down, so a positive angle turns clockwise on the screen
        a, b, c, d = cos, cos * slope - sin, sin, sin * slope + cos
        x, y = (width - 1) / 2, (height - 1) / 2  # the centre, as pixel positions
        matrix = np.array([[a, b, x + right - a * x - b * y], [c, d, y + down - c * x - d * y]])
        fill = (self.fill,) * 4
        warped = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=self.border,
                                borderValue=fill)  # fmt: skip
        return warped.reshape(image.shape)  # OpenCV drops a single channel


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
        return np.ascontiguousarray(np.rot90(image, params))


class _Erase(Operation):
    """One box (top, left, height, width) set to ``fill``."""

    fill: int

    def apply(self, image: np.ndarray, params: tuple[int, int, int, int]) -> np.ndarray:
        top, left, height, width = params
        image = image.copy()
        image[top : top + height, left : left + width] = self.fill
        return image


@TRANSFORMS.register_module()
class RandomErasing(_Erase):
    """One box of area U(scale) * HW set to ``fill``. Zhong et al., AAAI 2020."""

    def __init__(
        self,
        scale: tuple[float, float] = (0.02, 0.2),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: int = 0,
        probability: float = 0.5,
    ) -> None:
        super().__init__(probability)
        self.scale = interval('RandomErasing', positive=True, scale=scale)
        self.ratio = interval('RandomErasing', positive=True, ratio=ratio)
        self.fill = fill

    def sample(self, rng: Generator, height: int, width: int) -> tuple[int, int, int, int]:
        area = height * width * rng.uniform(*self.scale)
        ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        h, w = min(round(math.sqrt(area / ratio)), height), min(round(math.sqrt(area * ratio)), width)
        return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


@TRANSFORMS.register_module()
class Cutout(_Erase):
    """A square of ``size`` times the short side, centred at any pixel and cut off at the borders, set to ``fill``.

    DeVries and Taylor, arXiv 1708.04552. A box of random area and shape is ``RandomErasing``.
    """

    def __init__(self, size: float = 0.5, fill: int = 0, probability: float = 0.5) -> None:
        super().__init__(probability)
        if not 0 < size <= 1:
            raise ValueError(f'Cutout: size is a fraction of the short side in (0, 1], got {size}')
        self.size, self.fill = size, fill

    def sample(self, rng: Generator, height: int, width: int) -> tuple[int, int, int, int]:
        side = max(round(self.size * min(height, width)), 1)
        top, left = int(rng.integers(height)) - side // 2, int(rng.integers(width)) - side // 2
        bottom, right = min(top + side, height), min(left + side, width)
        return max(top, 0), max(left, 0), bottom - max(top, 0), right - max(left, 0)


@TRANSFORMS.register_module()
class PaddedCrop(Operation):
    """A random part of ``size`` in the middle of an image that keeps its size, the rest ``fill``.

    van den Oord et al., 2018: a 60 px part of each 64 px patch, so that borders give no hint of the neighbour.
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
