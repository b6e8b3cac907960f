"""Decoding of images to uint8 arrays (H, W, C): pixel modes, damaged files, and the check of an array."""

import io
import struct
from collections.abc import Callable
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image

MODES = ('RGB', 'L')
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_SIXTEEN_BIT = ('I;16', 'I;16L', 'I;16B', 'I;16N', 'I')


class CorruptImageError(ValueError):
    """An image that cannot be decoded; the message names it."""


def decode(source: str | PathLike | bytes, name: str, mode: str = 'RGB') -> np.ndarray:
    """Image file or encoded bytes -> uint8 (H, W, 3), or (H, W, 1) with ``mode='L'``.

    Grey, palette, 1-bit and CMYK become ``mode``; transparency is dropped without blending, as Pillow's ``convert`` and
    so the published pipelines do; 16-bit grey is scaled to 8 bits (Pillow alone would clip it to white).
    The EXIF orientation is NOT applied: the published pipelines read with ``Image.open(f).convert('RGB')``, which
    ignores it, and published accuracies were measured that way. Rotate such files beforehand if they should be upright.
    Raises CorruptImageError naming the file or record; OSError where the system cannot give the file (it is gone, the disk
    or the rights fail); ValueError for whole images whose pixels have no meaning as 8 bits.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have no number
            # replaced by its neighbours, the run would train on other data than its config says
            gone = isinstance(error, FileNotFoundError)
            why = 'is gone: it was there when the files were listed' if gone else f'cannot be read ({error.strerror})'
            raise type(error)(
                f'{name} {why}. It is not damaged, so no other image replaces it. Put it back.'
            ) from error
        raise CorruptImageError(
            f'{name} cannot be decoded ({type(error).__name__}: {error}). It is truncated, empty or not an image. '
            "Fetch or save it again or remove it; or set on_corrupt='skip' on the source, "
            'which puts the next readable image in its place.'
        ) from error
    try:
        return to_array(image, mode)
    except ValueError as error:
        raise ValueError(
            f'{name}: {error} It is not damaged, so no other image replaces it. Save it again as uint8.'
        ) from error


def to_array(image: Image.Image, mode: str = 'RGB') -> np.ndarray:
    """Pillow image of any mode -> uint8 (H, W, 3 or 1)."""
    if image.mode in _SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.int64)
        if grey.size and (grey.min() < 0 or grey.max() > 65535):
            raise ValueError(f'grey values {grey.min()}..{grey.max()} are neither 8 nor 16 bits.')
        image = Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == 'F':
        raise ValueError('floating-point pixels have no fixed range.')
    elif image.mode == 'P' and 'transparency' in image.info:
        image = image.convert('RGBA')  # otherwise Pillow warns about transparency given as bytes
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array if array.ndim == 3 else array[..., None]


def check_pixels(image: Any, who: Callable[[], str]) -> None:
    """TypeError that begins with ``who()`` unless ``image`` is an array uint8 (H, W, C) with at least one pixel.

    Anything else would train in silence: floats pass as normalised already, so that mean and std are skipped.
    """
    if not isinstance(image, np.ndarray):
        fix = 'Return mmkernel.datasets.images.to_array(image) of a Pillow image, image.permute(1, 2, 0).numpy() of a tensor.'
    elif image.size == 0:
        fix = 'It has no pixels: leave the record out.'
    elif image.ndim != 3:
        fix = 'Give one grey channel its axis: image[..., None].' if image.ndim == 2 else 'One record is one image.'
    elif _channels_first(*image.shape):
        fix = 'The channels come first: return image.transpose(1, 2, 0).'
    elif image.dtype == np.uint8:
        return
    elif image.dtype.kind == 'f' and 0 <= image.min() and image.max() <= 1:
        fix = 'For values in 0..1: np.rint(255 * image).astype(np.uint8).'
    elif image.dtype.kind == 'f':
        fix = 'Floats: undo any normalisation and scale them; mean and std belong to the model.'
    else:
        fix = {
            'bool': 'For a mask: 255 * image.astype(np.uint8).',
            'uint16': '16 bits: (image // 257).astype(np.uint8).',
        }.get(image.dtype.name, 'If all values lie in 0..255: image.astype(np.uint8).')
    kind = f'a {type(image).__module__}.{type(image).__name__}'
    found = f'{image.dtype} of shape {image.shape}' if isinstance(image, np.ndarray) else kind
    raise TypeError(
        f'{who()} gave {found}; expected a numpy array, uint8 of shape (H, W, C) with grey levels 0 to 255. {fix}'
    )


def _channels_first(height: int, width: int, channels: int) -> bool:
    """Three rows, or as many channels as columns below one or four rows: (C, H, W) rather than (H, W, C)."""
    return channels > 4 and width > 4 and (height == 3 or (height in (1, 4) and width == channels))
