"""Operations without a published reference, fast on small images: affine maps, noise, erased boxes. Any channels."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.random import Generator

from mmkernel.checks import check_numbers
from mmkernel.registry import TRANSFORMS

from .operations import Operation, interval

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
        if border not in BORDERS:
            raise ValueError(f'RandomAffine: border {border!r} is unknown, expected one of {", ".join(BORDERS)}')
        check_numbers('RandomAffine', scale=scale)
        check_numbers('RandomAffine', zero=True, degrees=degrees, translate=translate, shear=shear)
        if not scale[0] <= scale[1]:
            raise ValueError(f'RandomAffine: scale must be (low, high) with 0 < low <= high, got {scale}')
        if shear >= 90:
            raise ValueError(f'RandomAffine: shear={shear}; expected less than 90 degrees')
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, tuple(scale), shear
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
class GaussianNoise(Operation):
    """x + sigma * N(0, 1) per value, rounded and clipped; sigma from U(sigma) in grey levels of 255."""

    def __init__(self, sigma: float | tuple[float, float] = (0.0, 10.0), probability: float = 1.0) -> None:
        super().__init__(probability)
        self.sigma = interval('sigma', (0.0, sigma) if np.isscalar(sigma) else sigma, 0.0, 0.0)

    def sample(self, rng: Generator, height: int, width: int) -> tuple[float, int]:
        return float(rng.uniform(*self.sigma)), int(rng.integers(2**63))

    def apply(self, image: np.ndarray, params: tuple[float, int]) -> np.ndarray:
        sigma, key = params
        noise = np.random.Generator(np.random.Philox(key=key)).standard_normal(image.shape, np.float32)
        return np.clip(np.rint(image + np.float32(sigma) * noise), 0, 255).astype(np.uint8)


@TRANSFORMS.register_module()
class RandomErasing(Operation):
    """One box of area U(scale) * HW set to ``fill``. Zhong et al., AAAI 2020."""

    def __init__(
        self,
        scale: tuple[float, float] = (0.02, 0.2),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: int = 0,
        probability: float = 0.5,
    ) -> None:
        super().__init__(probability)
        check_numbers('RandomErasing', scale=scale, ratio=ratio)
        for name, (low, high) in (('scale', scale), ('ratio', ratio)):
            if not 0 < low <= high:
                raise ValueError(f'RandomErasing: {name} must be (low, high) with 0 < low <= high, got {low, high}')
        self.scale, self.ratio, self.fill = tuple(scale), tuple(ratio), fill

    def sample(self, rng: Generator, height: int, width: int) -> tuple[int, int, int, int]:
        area = height * width * rng.uniform(*self.scale)
        ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        h, w = min(round(math.sqrt(area / ratio)), height), min(round(math.sqrt(area * ratio)), width)
        return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w

    def apply(self, image: np.ndarray, params: tuple[int, int, int, int]) -> np.ndarray:
        top, left, height, width = params
        image = image.copy()
        image[top : top + height, left : left + width] = self.fill
        return image
