"""Image operations of views: each draws its parameters first and applies them later.

Images are uint8 arrays (H, W, C) throughout. With the same parameters the result equals the published Pillow and
torchvision pipelines exactly. The operations of ``geometry.py`` and ``corruptions.py`` have no such reference.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import cv2
import numpy as np
import torchvision.transforms.functional as F
from numpy.random import Generator
from PIL import Image, ImageFilter

from mmkernel.checks import check_numbers, check_words
from mmkernel.registry import TRANSFORMS


class Operation:
    """With ``probability`` the parameters of ``sample``, otherwise None, which means: leave the image alone."""

    def __init__(self, probability: float = 1.0) -> None:
        check_numbers(type(self).__name__, zero=True, most=1.0, probability=probability)
        self.probability = probability

    def draw(self, rng: Generator, height: int, width: int) -> Any:
        """Parameters for an image of this height and width, or None."""
        return self.sample(rng, height, width) if rng.random() < self.probability else None

    def sample(self, rng: Generator, height: int, width: int) -> Any:
        return True

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """uint8 (H, W, C) -> uint8 (H', W', C)."""
        raise NotImplementedError(
            f'{type(self).__name__} has no apply(image, params), which changes the image: define it.'
        )

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


def with_pillow(image: np.ndarray, function: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """``function`` of the image: of all of it for 1 or 3 channels, of each plane alone for any other number."""
    channels = image.shape[2]
    if channels == 3:
        return np.asarray(function(Image.fromarray(image)))
    planes = [np.asarray(function(Image.fromarray(image[..., c]))) for c in range(channels)]
    return planes[0][..., None] if channels == 1 else np.stack(planes, axis=-1)


def blend_table(pivot: int, factor: float) -> np.ndarray:
    """x -> pivot + factor (x - pivot) for x = 0 .. 255, cut off and clipped as Pillow's ``blend``, in its float32."""
    table = np.arange(-pivot, 256 - pivot, dtype=np.float32) * np.float32(factor) + np.float32(pivot)
    return np.clip(table, 0, 255).astype(np.uint8)


@TRANSFORMS.register_module()
class RandomFlip(Operation):
    """Left and right exchanged (direction='horizontal'), or top and bottom ('vertical'). Any number of channels."""

    def __init__(self, probability: float = 0.5, direction: str = 'horizontal') -> None:
        super().__init__(probability)
        check_words('RandomFlip', direction=(direction, ('horizontal', 'vertical')))
        self.axis = 1 if direction == 'horizontal' else 0  # as OpenCV numbers them

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        return cv2.flip(image, self.axis).reshape(
            image.shape
        )  # contiguous: Pillow copies a view with negative strides slowly


@TRANSFORMS.register_module()
class ColorJitter(Operation):
    """Brightness, contrast, saturation, hue in random order, each step rounded to uint8 as torchvision does.

    A strength v means a factor from U(max(0, 1 - v), 1 + v), for hue a shift from U(-v, v) of the colour circle
    (v <= .5); a pair (low, high) is taken as it is. Saturation and hue need three channels and do nothing to any other
    number, so that a recipe for colour images runs on grey ones; contrast then turns about the mean of all channels.
    """

    ADJUST = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)

    def __init__(
        self,
        brightness: float | tuple[float, float] = 0.0,
        contrast: float | tuple[float, float] = 0.0,
        saturation: float | tuple[float, float] = 0.0,
        hue: float | tuple[float, float] = 0.0,
        probability: float = 1.0,
    ) -> None:
        super().__init__(probability)
        self.ranges = [
            interval('ColorJitter', around=1.0, brightness=brightness),
            interval('ColorJitter', around=1.0, contrast=contrast),
            interval('ColorJitter', around=1.0, saturation=saturation),
            interval('ColorJitter', around=0.0, least=-0.5, hue=hue),
        ]
        if self.ranges[3][1] > 0.5:
            raise ValueError(f'hue={hue!r} leaves [-0.5, 0.5], half the colour circle')
        self.idle = [low == high == neutral for (low, high), neutral in zip(self.ranges, (1, 1, 1, 0), strict=True)]

    def sample(self, rng: Generator, height: int, width: int) -> list[tuple[int, float]]:
        order, where = rng.permutation(4).tolist(), rng.random(4).tolist()
        factors = [low + (high - low) * u for (low, high), u in zip(self.ranges, where, strict=True)]
        return [(k, factors[k]) for k in order if not self.idle[k]]

    def apply(self, image: np.ndarray, params: list[tuple[int, float]]) -> np.ndarray:
        if image.shape[2] == 3:
            return with_pillow(image, lambda rgb: reduce(lambda x, step: self.ADJUST[step[0]](x, step[1]), params, rgb))
        for k, factor in params:  # one look-up instead of a way to Pillow and back: it counts on small grey images
            if k < 2:
                image = blend_table(0 if k == 0 else int(image.mean() + 0.5), factor)[image]
        return image


@TRANSFORMS.register_module()
class RandomGrayscale(Operation):
    """Luminance (ITU-R 601) in all three channels. Does nothing unless there are three channels."""

    def __init__(self, probability: float = 0.2) -> None:
        super().__init__(probability)

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        if image.shape[2] != 3:
            return image
        return with_pillow(image, lambda rgb: Image.merge('RGB', (rgb.convert('L'),) * 3))


@TRANSFORMS.register_module()
class GaussianBlur(Operation):
    """Pillow's Gaussian blur (three box blurs), standard deviation in pixels from U(sigma). Any number of channels."""

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0), probability: float = 0.5) -> None:
        super().__init__(probability)
        self.sigma = interval('GaussianBlur', sigma=sigma)

    def sample(self, rng: Generator, height: int, width: int) -> float:
        return float(rng.uniform(*self.sigma))

    def apply(self, image: np.ndarray, params: float) -> np.ndarray:
        return with_pillow(image, lambda plane: plane.filter(ImageFilter.GaussianBlur(params)))


@TRANSFORMS.register_module()
class Solarize(Operation):
    """x -> 255 - x where x >= threshold, Pillow's ``ImageOps.solarize``. Any number of channels."""

    def __init__(self, threshold: int = 128, probability: float = 0.2) -> None:
        super().__init__(probability)
        check_numbers('Solarize', zero=True, threshold=threshold)
        self.threshold = threshold

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        return np.where(image < self.threshold, image, 255 - image)
