"""What opening a file may cost: checks of sizes that a file tells, made before any memory or disk is taken.

Each limit is a variable of the environment, so that a file that is known to be good can be opened: ``LIMITS``.
"""

import lzma
import math
import os
import pickle
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

LIMITS = dict(MMKERNEL_MAX_RATIO=50, MMKERNEL_MAX_PIXELS=2**27)
"""RATIO: bytes that come out of a file for each byte of it. PIXELS: of one image, all pages together."""
SMALL = 2**28  # bytes that any file may unpack to
DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, EOFError, Image.DecompressionBombError, LookupError, MemoryError, OSError,
    RuntimeError, SyntaxError, TypeError, ValueError, lzma.LZMAError, pickle.PickleError, struct.error, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What readers of formats raise for bytes that somebody made up or that have changed."""


class LimitError(ValueError):
    """A file that would take more memory or disk than a limit allows; the message says how to raise it."""


def limit_of(name: str) -> float:
    """One of ``LIMITS``, or the number that the environment gives for it; ValueError for anything else there."""
    given = os.environ.get(name, '')
    try:
        value = float(given or LIMITS[name])
    except ValueError:
        value = 0.0
    if not value > 0:
        raise ValueError(f'{name}={given!r} in the environment; expected a number above 0 (default {LIMITS[name]}).')
    return value


def check_unpacked(what: str, given: int, unpacked: int) -> None:
    """LimitError if ``given`` bytes become more than MMKERNEL_MAX_RATIO times as many, unless these are few."""
    ratio = limit_of('MMKERNEL_MAX_RATIO')
    if unpacked > max(SMALL, ratio * given):
        raise LimitError(
            f'{what} ({given / 1e6:.1f} MB) unpacks to {unpacked / 1e6:.0f} MB, {unpacked / max(given, 1):.0f} times its size; at '
            f'most {ratio:g} times are taken. If you trust it: MMKERNEL_MAX_RATIO={math.ceil(unpacked / max(given, 1))} in the '
            'environment.'
        )


def check_zip(path: str | Path) -> None:
    """LimitError if the members of a zip archive (.npz, or a checkpoint) are too large for its size."""
    with zipfile.ZipFile(path) as archive:
        check_unpacked(f"'{path}'", Path(path).stat().st_size, sum(each.file_size for each in archive.infolist()))


def check_npz(path: str | Path) -> None:
    """LimitError as ``check_zip``; ValueError that names an array whose bytes are not as many as its header says."""
    check_zip(path)
    with zipfile.ZipFile(path) as archive:
        for each in archive.infolist():
            with archive.open(each) as file:
                check_npy(file, each.file_size, f"'{path}': {each.filename.removesuffix('.npy')}")


def check_npy(file: IO[bytes], size: int, what: str) -> None:
    """ValueError unless ``size`` bytes are what the header of an array of numpy says, and it has no Python objects."""
    try:
        read = np.lib.format.read_array_header_1_0
        if np.lib.format.read_magic(file) != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except DAMAGED as error:
        raise ValueError(f'{what} cannot be read ({error}).') from error
    if dtype.hasobject:
        raise ValueError(f'{what} cannot be read (Python objects are a pickle, which can run code and is not loaded).')
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed != size - file.tell():
        raise ValueError(
            f'{what} cannot be read: its header says {dtype} of shape {shape}, {needed} bytes; it has {size - file.tell()}.'
        )


def check_image(width: int, height: int, pages: int = 1) -> None:
    """LimitError for an image of more than MMKERNEL_MAX_PIXELS pixels."""
    most, pixels = limit_of('MMKERNEL_MAX_PIXELS'), width * height * pages
    if pixels > most:
        raise LimitError(
            f'{width} x {height} pixels{f" on {pages} pages" if pages > 1 else ""} are more than {most:g}. If you trust it: '
            f'MMKERNEL_MAX_PIXELS={pixels} in the environment'
        )
