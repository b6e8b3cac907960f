"""Pillow's operations on uint8 arrays (H, W, C) with any number of channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from mmkernel.checks import check_numbers

RESAMPLING = dict(
    nearest=Image.Resampling.NEAREST,
    bilinear=Image.Resampling.BILINEAR,
    bicubic=Image.Resampling.BICUBIC,
    lanczos=Image.Resampling.LANCZOS,
)


def with_pillow(image: np.ndarray, function: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """``function`` of the image: of all of it for 1 or 3 channels, of each plane alone for any other number."""
    channels = image.shape[2]
    if channels == 3:
        return np.asarray(function(Image.fromarray(image)))
    planes = [np.asarray(function(Image.fromarray(image[..., c]))) for c in range(channels)]
    return planes[0][..., None] if channels == 1 else np.stack(planes, axis=-1)


def resampling(interpolation: str) -> Image.Resampling:
    """Pillow's filter of that name; ValueError otherwise."""
    if interpolation not in RESAMPLING:
        raise ValueError(f"interpolation '{interpolation}' is unknown, expected one of {', '.join(RESAMPLING)}")
    return RESAMPLING[interpolation]


def resize(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Antialiased resize, equal to Pillow's; (H, W, C) -> (height, width, C)."""
    if image.shape[:2] == (height, width):
        return image  # Pillow copies in this case
    filter_ = RESAMPLING[interpolation]
    return with_pillow(image, lambda plane: plane.resize((width, height), filter_))


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


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """One number is a square."""
    check_numbers(whole=True, size=size)
    height, width = size if isinstance(size, Iterable) else (size, size)
    return int(height), int(width)
