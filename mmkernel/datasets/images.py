"""Encoded images -> uint8 arrays (H, W, C); one place that knows about pixel modes and broken files."""

from __future__ import annotations

import io
import struct
from os import PathLike

import numpy as np
from PIL import Image

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_SIXTEEN_BIT = ('I;16', 'I;16L', 'I;16B', 'I;16N', 'I')


class CorruptImageError(ValueError):
    """An image that cannot be decoded; the message names it."""


def decode(source: str | PathLike | bytes, name: str, mode: str = 'RGB') -> np.ndarray:
    """Image file or encoded bytes -> uint8 (H, W, 3), or (H, W, 1) with ``mode='L'``.

    Grey, palette, 1-bit and CMYK become ``mode``; transparency is dropped without blending, as Pillow's ``convert`` and
    so the published pipelines do; 16-bit grey is scaled to 8 bits (Pillow alone would clip it to white).
    The EXIF orientation is NOT applied: the published pipelines read with ``Image.open(f).convert('RGB')``, which
    ignores it, and published accuracies were measured that way. Rotate such files beforehand if they should stand.
    Raises CorruptImageError naming the file or record.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return to_array(image, mode)
    except _BROKEN as error:
        raise CorruptImageError(
            f'{name} cannot be decoded ({type(error).__name__}: {error}). It is truncated, empty or not an image. '
            "Fetch or save it again or remove it; or set on_corrupt='skip' on the source, "
            'which puts the next readable image in its place.'
        ) from error


def to_array(image: Image.Image, mode: str = 'RGB') -> np.ndarray:
    """Pillow image of any mode -> uint8 (H, W, 3 or 1)."""
    if image.mode in _SIXTEEN_BIT:
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    elif image.mode == 'F':
        raise ValueError('floating-point pixels have no fixed range; save the image with 8 or 16 bits per channel')
    elif image.mode == 'P' and 'transparency' in image.info:
        image = image.convert('RGBA')  # otherwise Pillow warns about transparency given as bytes
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array if array.ndim == 3 else array[..., None]


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    grey = grey.astype(np.int64)
    if grey.size and (grey.min() < 0 or grey.max() > 65535):
        raise ValueError(f'grey values {grey.min()}..{grey.max()} are neither 8 nor 16 bits')
    return ((grey * 255 + 32767) // 65535).astype(np.uint8)
