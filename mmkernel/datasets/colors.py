"""Operations on colours: each exists for a worker, for the device, and as Pillow and torchvision have it (``operations.py``)."""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torchvision.transforms.functional as F
from numpy.random import Generator
from PIL import Image
from torch import Tensor

from mmkernel.registry import TRANSFORMS

from .operations import Operation, interval, with_pillow

FLOOR = -0.4999  # OpenCV rounds, Pillow cuts off; a little more than minus a half, so that whole numbers stay
# OpenCV's HSV (360 degrees, 0..1, 0..255) -> 0..255 each, to be cut off; hues on a border fall to the side where Pillow's mostly do
TO_BYTES = np.array([[255 / 360 * (1 + 8.5e-6), 0, 0, -2.6e-4], [0, 255, 0, 1e-3], [0, 0, 1, 1e-3]])


@lru_cache(256)
def _from_bytes(steps: int) -> np.ndarray:
    """Back from 0..255, with the hue moved by ``steps`` modulo 256."""
    levels = np.arange(256)
    return np.stack([(levels + steps) % 256 * (360 / 255), levels / 255, levels], -1).astype(np.float32)[None]


def turn_hue(image: np.ndarray, steps: int) -> np.ndarray:
    """RGB -> Pillow's HSV of 8 bits -> hue + steps modulo 256 -> RGB; uint8 (H, W, 3)."""
    hsv = cv2.transform(cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV), TO_BYTES).astype(np.uint8)
    return cv2.convertScaleAbs(cv2.cvtColor(cv2.LUT(hsv, _from_bytes(steps)), cv2.COLOR_HSV2RGB))


def turn_hues(images: Tensor, steps: Tensor) -> Tensor:
    """The same, (B, 3, H, W) and (B, 1, 1, 1); with Pillow's float32 and float64, which decide for hues on a border."""
    value = images.amax(1, keepdim=True)
    span = value - images.amin(1, keepdim=True)
    red, green, blue = ((value - images) / span.clamp(min=1)).double().split(1, 1)  # 0 where it is the largest
    hue = torch.where(red == 0, blue - green, torch.where(green == 0, 2 + red - blue, 4 + green - red)).float()
    hue = ((hue.double() / 6 + 1) % 1).float().double() * 255
    sixths = (hue.floor().float() + steps) % 256 * (6 / 255)
    chroma = value * (255 * span / value.clamp(min=1)).floor() / 255
    distances = [(sixths + start) % 6 for start in (5, 3, 1)]
    return (value - chroma * torch.cat([torch.minimum(d, 4 - d).clamp(0, 1) for d in distances], 1) + 0.5).floor()


def grey(image: np.ndarray) -> np.ndarray:
    """Luminance (H, W) of three channels; of any other number, the channels side by side."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image.reshape(len(image), -1)


def greys(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W), Pillow's to the bit: float32 holds these sums. Any other number of channels stays."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.split(1, 1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()


@TRANSFORMS.register_module()
class ColorJitter(Operation):
    """Brightness, contrast, saturation, hue in random order, each step rounded to uint8 as torchvision does.

    x -> p + f (x - p) with p = 0, the mean luminance, the pixel's luminance; hue + shift in Pillow's HSV. A strength v means
    f from U(max(0, 1 - v), 1 + v), for hue a shift from U(-v, v) of the colour circle (v <= .5); a pair (low, high) is taken
    as it is. Saturation and hue need three channels and do nothing to any other number, so that a recipe for colour images
    runs on grey ones; contrast then turns about the mean of all channels.
    """

    floats = 8
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
        order = [0, 1, 2, 3]
        rng.shuffle(order)  # a list, in place: rng.permutation(4), in a third of the time
        factors = [low + (high - low) * u for (low, high), u in zip(self.ranges, rng.random(4).tolist(), strict=True)]
        return [(k, factors[k]) for k in order if not self.idle[k]]

    def apply(self, image: np.ndarray, params: list[tuple[int, float]]) -> np.ndarray:
        for k, factor in params:
            if k < 2:
                pivot = int(cv2.mean(grey(image))[0] + 0.5) if k == 1 else 0
                image = cv2.addWeighted(image, factor, image, 0, (1 - factor) * pivot + FLOOR).reshape(image.shape)
            elif image.shape[2] == 3 and k == 2:
                luminance = cv2.cvtColor(grey(image), cv2.COLOR_GRAY2RGB)
                image = cv2.addWeighted(image, factor, luminance, 1 - factor, FLOOR)
            elif image.shape[2] == 3:
                image = turn_hue(image, int(factor * 255) % 256)
        return image

    def exact(self, image: np.ndarray, params: list[tuple[int, float]]) -> np.ndarray:
        for k, factor in params:
            if image.shape[2] == 3:
                image = with_pillow(image, self.ADJUST[k], factor)
            elif k < 2:
                pivot = Image.new('L', image.shape[1::-1], int(image.mean() + 0.5) if k == 1 else 0)
                image = with_pillow(image, lambda plane, p=pivot, f=factor: Image.blend(p, plane, f))
        return image

    def encode(self, params: list[tuple[int, float]]) -> list[float]:
        """Four steps (which, factor or hue steps); brightness by 1 stands for one that is left out."""
        steps = [(k, int(factor * 255) % 256 if k == 3 else factor) for k, factor in params]
        return [number for step in steps + [(0, 1.0)] * (4 - len(steps)) for number in step]

    def on_device(self, images: Tensor, params: Tensor) -> Tensor:
        for step in params.reshape(-1, 4, 2, 1, 1, 1).unbind(1):
            which, factor = step.unbind(1)
            luminance = greys(images)
            mean = (luminance.mean((1, 2, 3), keepdim=True) + 0.5).floor()
            pivot = torch.where(which == 0, 0.0, torch.where(which == 1, mean, luminance))
            blended = (pivot + factor * (images - pivot)).clamp(0, 255).floor()
            turned = turn_hues(images, factor) if images.shape[1] == 3 else images
            images = torch.where(which == 3, turned, blended)
        return images


@TRANSFORMS.register_module()
class RandomGrayscale(Operation):
    """Luminance (ITU-R 601) in all three channels. Does nothing unless there are three channels."""

    floats = 0

    def __init__(self, probability: float = 0.2) -> None:
        super().__init__(probability)

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        if image.shape[2] != 3:
            return image
        return cv2.cvtColor(grey(image), cv2.COLOR_GRAY2RGB)

    def exact(self, image: np.ndarray, params: Any) -> np.ndarray:
        if image.shape[2] != 3:
            return image
        return with_pillow(image, lambda rgb: rgb.convert('L').convert('RGB'))

    def on_device(self, images: Tensor, params: Tensor) -> Tensor:
        return greys(images).expand_as(images)
