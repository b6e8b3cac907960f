"""Image operations of views: parameters are drawn once, and applied in one of three places.

In a worker, ``apply``: OpenCV on uint8 arrays (H, W, C). On the device, ``on_device``: torch on a batch (B, C, H, W), each image
with its own parameters. ``exact``: Pillow, the bytes of the published pipelines. For photographs, saturated or not, the first two
lie within one grey level of 255 of the third on average, and within 4 in 99.9 % of all values of an image.

These have a device form: RandomFlip, ColorJitter, RandomGrayscale, GaussianBlur, Solarize. Crops and the operations of
``geometry.py`` and ``corruptions.py`` have none.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from PIL import Image, ImageFilter
from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.registry import TRANSFORMS


class Operation:
    """Applied with ``probability``: then ``draw`` gives the parameters of ``sample``, otherwise None.

    A subclass defines ``apply``; for the device also ``floats``, ``on_device`` and, unless floats = 0, ``encode``. None of them
    writes into the image that it is given.
    """

    floats: int | None = None  # how many numbers ``encode`` gives; None: there is no device form

    def __init__(self, probability: float = 1.0) -> None:
        check_numbers(type(self).__name__, zero=True, most=1.0, probability=probability)
        self.probability = probability

    def draw(self, rng: Generator, height: int, width: int) -> Any:
        """Parameters for an image of this height and width, or None."""
        return self.sample(rng, height, width) if rng.random() < self.probability else None

    def sample(self, rng: Generator, height: int, width: int) -> Any:
        return True

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """In a worker: uint8 (H, W, C), perhaps read-only or a slice of another image -> uint8 (H', W', C)."""
        raise NotImplementedError(
            f'{type(self).__name__} has no apply(image, params), which changes the image: define it.'
        )

    def exact(self, image: np.ndarray, params: Any) -> np.ndarray:
        """As ``apply``, with Pillow's bytes."""
        return self.apply(image, params)

    def encode(self, params: Any) -> Sequence[float]:
        """``params`` as the ``floats`` numbers that ``on_device`` reads."""
        return ()

    def on_device(self, images: Tensor, params: Tensor) -> Tensor:
        """Whole numbers 0..255 as floats (B, C, H, W), and (B, floats) -> the same, applied to every image."""
        raise NotImplementedError(f'{type(self).__name__} has no device form: apply it in the worker.')

    def size_after(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result; operations keep them, crops do not."""
        return height, width


def interval(
    owner: str, around: float | None = None, least: float = 0.0, positive: bool = False, **given: Any
) -> tuple[float, float]:
    """The one keyword as (low, high). With ``around``, a number v is (around - v, around + v), cut off at ``least``.

    ValueError unless least <= low <= high, and 0 < low where ``positive``.
    """
    check_numbers(owner, signed=True, **given)
    ((name, value),) = given.items()
    ends = tuple(value) if isinstance(value, Iterable) else (value,)
    if around is not None and len(ends) == 1:
        ends = (max(around - value, least), around + value)
    if len(ends) != 2 or not least <= ends[0] <= ends[1] or (positive and ends[0] == 0):
        strength = '' if around is None else ', or one strength >= 0'
        raise ValueError(
            f'{owner}.{name}={value!r}; expected (low, high) with {least:g} {"<" if positive else "<="} low <= high{strength}.'
        )
    return float(ends[0]), float(ends[1])


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """One number is a square."""
    check_numbers(whole=True, size=size)
    height, width = size if isinstance(size, Iterable) else (size, size)
    return int(height), int(width)


def with_pillow(image: np.ndarray, function: Callable[..., Image.Image], *args: Any) -> np.ndarray:
    """``function(image, *args)`` by Pillow: of the whole image where it has three channels, otherwise of each plane alone."""
    if image.shape[2] == 3:
        return np.asarray(function(Image.fromarray(image), *args))
    return np.stack(
        [np.asarray(function(Image.fromarray(plane), *args)) for plane in np.moveaxis(image, 2, 0)], axis=-1
    )


@TRANSFORMS.register_module()
class RandomFlip(Operation):
    """Left and right exchanged (direction='horizontal'), or top and bottom ('vertical'). Any number of channels."""

    floats = 0

    def __init__(self, probability: float = 0.5, direction: str = 'horizontal') -> None:
        super().__init__(probability)
        check_words('RandomFlip', direction=(direction, ('horizontal', 'vertical')))
        self.axis = 1 if direction == 'horizontal' else 0  # as OpenCV numbers them

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        return cv2.flip(image, self.axis).reshape(image.shape)  # OpenCV drops a single channel

    def on_device(self, images: Tensor, params: Tensor) -> Tensor:
        return images.flip(2 + self.axis)


@TRANSFORMS.register_module()
class GaussianBlur(Operation):
    """Pillow's Gaussian blur of standard deviation U(sigma) in pixels: three box blurs, borders repeated. Any number of channels.

    A box of radius r weighs the pixel at distance j by min(max(r + 1 - j, 0), 1) / (2 r + 1).
    Gwosdek et al., Theoretical foundations of Gaussian convolution by extended box filtering, SSVM 2011.
    """

    floats = 1

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0), probability: float = 0.5) -> None:
        super().__init__(probability)
        self.sigma = interval('GaussianBlur', sigma=sigma)

    def sample(self, rng: Generator, height: int, width: int) -> float:
        return float(rng.uniform(*self.sigma))

    def apply(self, image: np.ndarray, params: float) -> np.ndarray:
        radius = box_radius(params)
        reach = int(radius) + 1
        box = np.clip(radius + 1 - np.abs(np.arange(-reach, reach + 1)), 0, 1) / (2 * radius + 1)
        for _ in range(3):
            image = cv2.sepFilter2D(image, -1, box, box, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)
        return image

    def exact(self, image: np.ndarray, params: float) -> np.ndarray:
        return with_pillow(image, Image.Image.filter, ImageFilter.GaussianBlur(params))

    def encode(self, params: float) -> tuple[float]:
        return (box_radius(params),)

    def on_device(self, images: Tensor, params: Tensor) -> Tensor:
        reach = int(box_radius(self.sigma[1])) + 1  # of the widest box: every image has as many weights, some of them 0
        radius, one = params[:, :, None, None], 2**24  # Pillow's weights are whole numbers of 2^-24, which decides ties
        inner = (one / (2 * radius + 1)).floor()
        outer = ((one - (2 * radius.floor() + 1) * inner) / 2).floor()
        at = [torch.where(j <= radius, inner, (j <= radius + 1) * outer).double() / one for j in range(reach + 1)]
        width = images.shape[3]
        for _ in range(2):
            for _ in range(3):  # each rounds to whole numbers
                row = F.pad(images, (reach, reach, 0, 0), mode='replicate')
                pairs = (
                    row[..., reach - j :][..., :width] + row[..., reach + j :][..., :width] for j in range(1, reach + 1)
                )
                total = sum((weight * pair for weight, pair in zip(at[1:], pairs, strict=True)), at[0] * images)
                images = (total + 0.5).floor().float()
            images, width = images.mT, images.shape[2]
        return images


def box_radius(sigma: float) -> float:
    """Of the box that, taken three times, has the variance sigma^2; in float32, as Pillow has it."""
    variance = np.float32(sigma) * np.float32(sigma) / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    return float(whole + (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2)))


@TRANSFORMS.register_module()
class Solarize(Operation):
    """x -> 255 - x where x >= threshold, Pillow's ``ImageOps.solarize``. Any number of channels."""

    floats = 0

    def __init__(self, threshold: int = 128, probability: float = 0.2) -> None:
        super().__init__(probability)
        check_numbers('Solarize', zero=True, threshold=threshold)
        self.threshold, levels = threshold, np.arange(256, dtype=np.uint8)
        self.table = np.where(levels < threshold, levels, 255 - levels)

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        return cv2.LUT(image, self.table).reshape(image.shape)

    def on_device(self, images: Tensor, params: Tensor) -> Tensor:
        return torch.where(images < self.threshold, images, 255 - images)
