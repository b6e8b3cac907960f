"""Decoding of images to uint8 arrays (H, W, C): pixel modes, deeper pixels, damaged files, and the check of an array."""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, ImageSequence

from mmkernel.checks import check_numbers
from mmkernel.limits import DAMAGED, LimitError, check_image, check_npy, limit_of

MODES = ('RGB', 'L', 'all')
_SIXTEEN_BIT = ('I;16', 'I;16L', 'I;16B', 'I;16N', 'I')


class CorruptImageError(ValueError):
    """An image that cannot be decoded; the message names it."""


def decode(
    source: str | os.PathLike | bytes, name: str, mode: str = 'RGB', upright: bool = False, deep: bool = False
) -> np.ndarray:
    """Image file or encoded bytes -> uint8 (H, W, C): 3 channels with ``mode='RGB'``, 1 with 'L', all that it has with 'all'.

    'all': the bands, or the pages of a TIFF one after another; palettes as RGB. An array of numpy (.npy, (H, W) or (H, W, C)) has
    its own channels in any mode. For 'RGB' and 'L': grey, palette, 1-bit and CMYK are converted; transparency is dropped without
    blending, as Pillow's ``convert`` and so the published pipelines do.
    deep: values of 16 bits, and floats, stay as they are (see ``scaled``); otherwise 16-bit grey is scaled to 8 bits (Pillow
    alone would clip it to white), and other values are refused. Pillow has no 16-bit RGB: it reads the upper 8 bits.
    upright: turned and mirrored as the EXIF orientation says. The published pipelines do NOT: they read with
    ``Image.open(f).convert('RGB')``, and published accuracies were measured that way. (Pillow itself turns TIFFs.)
    Raises CorruptImageError naming the file or record; OSError where the system cannot give the file (it is gone, the disk
    or the rights fail); ValueError for whole images whose pixels have no meaning as 8 bits.
    """
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if source[:6] == b'\x93NUMPY' if isinstance(source, bytes) else os.fspath(source).lower().endswith('.npy'):
            check_npy(io.BytesIO(data), len(data), 'the array')
            array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            return array[..., None] if array.ndim == 2 else array
        with _header(data, mode) as image:
            turned = upright and image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            if not turned and (array := _jpeg(data, image, mode)) is not None:
                return array
            image.load()
            pages = [image]
            if mode == 'all' and image.format == 'TIFF' and getattr(image, 'n_frames', 1) > 1:
                pages = [page.copy() for page in ImageSequence.Iterator(image)]
    except LimitError as error:
        raise CorruptImageError(
            f"{name} is not decoded: {error}; on_corrupt='skip' on the source leaves it out."
        ) from error
    except DAMAGED as error:
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
        arrays = [to_array(ImageOps.exif_transpose(page) if upright else page, mode, deep) for page in pages]
        if len({array.shape[:2] for array in arrays}) > 1:
            raise ValueError(f'its {len(arrays)} pages differ in size, so they are no channels of one image.')
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, 2)
    except ValueError as error:
        raise ValueError(
            f'{name}: {error} It is not damaged, so no other image replaces it. Save it again as uint8.'
        ) from error


def _header(data: bytes, mode: str) -> Image.Image:
    """The image without its pixels; LimitError if it has too many."""
    most, theirs = limit_of('MMKERNEL_MAX_PIXELS'), Image.MAX_IMAGE_PIXELS
    if 'MMKERNEL_MAX_PIXELS' in os.environ and theirs is not None and most > 2 * theirs:  # which Pillow refuses
        Image.MAX_IMAGE_PIXELS = most
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:  # before we have seen its size
        pixels = ''.join(re.findall(r'\d+', str(error))[:1])
        how = f'If you trust it: MMKERNEL_MAX_PIXELS={pixels} in the environment'
        raise LimitError(f'{type(error).__name__}: {error} {how}') from error
    check_image(*image.size, getattr(image, 'n_frames', 1) if mode == 'all' and image.format == 'TIFF' else 1)
    return image


def _jpeg(data: bytes, opened: Image.Image, mode: str) -> np.ndarray | None:
    """By OpenCV, which is faster and gives Pillow's bytes; None for what is left to Pillow: other files, damaged ones."""
    wanted = opened.mode if mode == 'all' else mode
    if opened.format != 'JPEG' or opened.mode not in ('RGB', 'L') or (wanted, opened.mode) == ('L', 'RGB'):
        return None
    colours = cv2.IMREAD_COLOR_RGB if wanted == 'RGB' else cv2.IMREAD_GRAYSCALE
    array = cv2.imdecode(np.frombuffer(data, np.uint8), colours | cv2.IMREAD_IGNORE_ORIENTATION)
    return array if array is None or wanted == 'RGB' else array[..., None]


def to_array(image: Image.Image, mode: str = 'RGB', deep: bool = False) -> np.ndarray:
    """Pillow image of any mode -> uint8 (H, W, 3 or 1), or all its bands; see ``decode``."""
    if deep and image.mode in (*_SIXTEEN_BIT, 'F'):
        grey = np.asarray(image)[..., None]
        return np.repeat(grey, 3, 2) if mode == 'RGB' else grey
    if image.mode in _SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.int64)
        if grey.size and (grey.min() < 0 or grey.max() > 65535):
            raise ValueError(
                f'grey values {grey.min()}..{grey.max()} are neither 8 nor 16 bits; `scale` says their range.'
            )
        image = Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == 'F':
        raise ValueError('floating-point pixels have no fixed range: give it with `scale` of the source.')
    elif image.mode == 'P' and 'transparency' in image.info:
        image = image.convert('RGBA')  # otherwise Pillow warns about transparency given as bytes
    if mode == 'all':
        mode = {'1': 'L', 'P': 'RGB', 'PA': 'RGB'}.get(image.mode, image.mode)
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array if array.ndim == 3 else array[..., None]


def value_range(scale: float | tuple[float, float] | None) -> tuple[float, float] | None:
    """(low, high) of a ``scale``: itself, or (0, scale); None of None. ValueError unless low < high, both finite."""
    if scale is None:
        return None
    pair = tuple(scale) if isinstance(scale, (tuple, list)) else (0, scale)
    if len(pair) == 2:
        check_numbers('scale', signed=True, low=pair[0], high=pair[1])
    if len(pair) != 2 or pair[0] >= pair[1]:
        raise ValueError(
            f'scale={scale!r}; expected the value that becomes 255, or those that become 0 and 255: (low, high).'
        )
    return pair


def scaled(image: Any, scale: float | tuple[float, float], who: Callable[[], str]) -> Any:
    """rint(255 (x - low) / (high - low)) as uint8 of 16-bit or float values x; those outside low..high become 0 and 255.

    ``scale``: (low, high), or high alone, with low = 0. uint8 stays as it is. ValueError that begins with ``who()`` for NaN.
    """
    if not isinstance(image, np.ndarray) or image.dtype == np.uint8 or image.dtype.kind not in 'biuf':
        return image
    low, high = value_range(scale)
    values = image.astype(np.float64 if image.dtype.itemsize > 2 else np.float32)
    if np.isnan(values).any():
        raise ValueError(f'{who()} has {int(np.isnan(values).sum())} values that are NaN; give them a number first.')
    return np.rint((np.clip(values, low, high) - low) * (255 / (high - low))).astype(np.uint8)


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
        fix = 'For values in 0..1: np.rint(255 * image).astype(np.uint8), or scale=1 of the source.'
    elif image.dtype.kind == 'f':
        fix = (
            'Floats: undo any normalisation and scale them; mean and std belong to the model. scale=(low, high) of the source '
            'does it, for the values that are to become 0 and 255.'
        )
    else:
        fix = {
            'bool': 'For a mask: 255 * image.astype(np.uint8).',
            'uint16': '16 bits: (image // 257).astype(np.uint8), or scale=65535 of the source (12 bits: 4095).',
        }.get(image.dtype.name, 'If all values lie in 0..255: image.astype(np.uint8).')
    kind = f'a {type(image).__module__}.{type(image).__name__}'
    found = f'{image.dtype} of shape {image.shape}' if isinstance(image, np.ndarray) else kind
    raise TypeError(
        f'{who()} gave {found}; expected a numpy array, uint8 of shape (H, W, C) with grey levels 0 to 255. {fix}'
    )


def _channels_first(height: int, width: int, channels: int) -> bool:
    """Three rows, or as many channels as columns below one or four rows: (C, H, W) rather than (H, W, C)."""
    return channels > 4 and width > 4 and (height == 3 or (height in (1, 4) and width == channels))
