"""Arrays that are made once and kept in a file, such as an index of images: checked and mapped when read, made again if damaged."""

import json
import math
import os
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from mmkernel.limits import DAMAGED
from mmkernel.writing import replacing

Arrays = dict[str, np.ndarray]
_MAGIC = b'mmkernel arrays 1\n'
_ALIGN = 64


class Kept(dict):
    """Arrays mapped from a file. Another process gets the name of the file in place of their bytes."""

    def __init__(self, arrays: Arrays, file: Path, crc32: int) -> None:
        super().__init__(arrays)
        self.file, self.crc32 = file, crc32

    def __reduce__(self) -> tuple[Callable, tuple]:
        return _opened_again, (self.file, self.crc32)


def _opened_again(file: Path, crc32: int) -> Kept:
    header, arrays, _ = _opened(file)
    if header['crc32'] != crc32:
        raise ValueError(f"'{file}' was written anew while processes started: files have changed. Start again.")
    return Kept(arrays, file, crc32)


def kept(
    places: Sequence[Path],
    about: Mapping[str, Any],
    make: Callable[[], Arrays],
    fits: Callable[[Arrays], bool] = lambda arrays: True,
) -> Arrays:
    """The arrays of ``make()``, mapped from the first of the files ``places`` that holds them, else made and written.

    about: all that they depend on, as JSON can write it; a file of another ``about`` is replaced. A damaged one is too, with
    a warning. The first place that can be written and locked is taken; where none can, a warning says so, and the arrays stay in
    memory. Of several processes that start together one makes them. A file appears whole or not at all.
    fits: whether arrays that were found still hold; if not they are made again, with a warning where it raises ValueError.
    """
    about = json.loads(json.dumps(about))
    before = [_stamp(place) for place in places]
    for place in places:
        if (found := _good(place, about, fits)) is not None:
            return found
    place, lock = next(((place, lock) for place in places if (lock := _locked(place))), (None, None))
    if place is None:
        _not_kept(places, 'no folder can be written')
        return make()
    with lock:
        if _stamp(place) != before[places.index(place)] and (found := _good(place, about, fits)) is not None:
            return found  # made by another process meanwhile
        arrays = make()
        try:
            _write(place, about, arrays)
        except OSError as error:
            _not_kept([place], str(error.strerror))
            return arrays
    return _read(place, about) or arrays


def _stamp(place: Path) -> tuple[int, int] | None:
    return (place.stat().st_ino, place.stat().st_mtime_ns) if os.path.isfile(place) else None


def _not_kept(places: Sequence[Path], why: str) -> None:
    where = ' or '.join(f"'{place.parent}'" for place in places)
    warnings.warn(
        f'An index cannot be kept in {where} ({why}): every start makes it again. Set MMKERNEL_HOME to a folder of yours.',
        stacklevel=4,
    )


def _locked(place: Path) -> AbstractContextManager | None:
    """The lock of a file, held until its context ends; None where no lock can be had: another user's, a folder of others."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(place.parent, os.W_OK):
            return None
        return FileLock(place.with_name(f'.{place.name.lstrip(".")}.lock')).acquire()
    except (OSError, NotImplementedError):  # the lock of another user; a file system without locks
        return None


def _good(path: Path, about: Mapping[str, Any], fits: Callable[[Arrays], bool]) -> Arrays | None:
    try:
        found = _read(path, about)
        return found if found is not None and fits(found) else None
    except DAMAGED as error:
        what = 'cannot be read' if isinstance(error, OSError) else 'is damaged'
        warnings.warn(f"'{path}' {what} ({error}): it is made again.", stacklevel=4)
        return None


def _read(path: Path, about: Mapping[str, Any]) -> Arrays | None:
    """The arrays of a file; None if there is none, or one of something else. ValueError or another error if it is damaged."""
    if not os.path.isfile(path):  # of a folder that is closed to us, Path.is_file raises
        return None
    header, arrays, data = _opened(path)
    if header['about'] != about:
        return None
    if len(data) != header['bytes'] or zlib.crc32(data) != header['crc32']:
        raise ValueError('its bytes are not those that were written')
    return Kept(arrays, path, header['crc32'])


def _opened(path: Path) -> tuple[dict, Arrays, np.ndarray]:
    """(the header, the arrays, the bytes of all of them) of a file."""
    data = np.asarray(np.memmap(path, np.uint8, mode='r'))  # a slice of a memmap costs ten times that of an array
    begin = len(_MAGIC) + 8
    if bytes(data[: len(_MAGIC)]) != _MAGIC:
        raise ValueError('its first line is another')
    size = int.from_bytes(bytes(data[len(_MAGIC) : begin]), 'little')
    header, data = json.loads(bytes(data[begin : begin + size])), data[_aligned(begin + size) :]
    arrays = {}
    for name, (kind, shape, offset) in header['arrays'].items():
        end = offset + math.prod(shape) * np.dtype(kind).itemsize
        if np.dtype(kind).hasobject or min(offset, *shape, 0) < 0 or end > len(data):
            raise ValueError(f'{name} lies outside of it')
        arrays[name] = data[offset:end].view(kind).reshape(shape)
    return header, arrays, data


def _write(path: Path, about: Mapping[str, Any], arrays: Arrays) -> None:
    offset, crc, table = 0, 0, {}
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise TypeError(f'{name} holds Python objects; expected numbers or bytes.')
        table[name] = array.dtype.str, array.shape, offset
        offset = _aligned(offset + array.nbytes)
        crc = zlib.crc32(b'\0' * (-array.nbytes % _ALIGN), zlib.crc32(array.reshape(-1).view(np.uint8), crc))
    header = json.dumps(dict(about=about, arrays=table, bytes=offset, crc32=crc)).encode()
    with replacing(path, offset) as temporary, open(temporary, 'wb') as file:
        file.write(_MAGIC + len(header).to_bytes(8, 'little') + header)
        file.write(b'\0' * (-file.tell() % _ALIGN))
        for array in plain.values():
            file.write(array.reshape(-1).view(np.uint8))
            file.write(b'\0' * (-array.nbytes % _ALIGN))


def _aligned(position: int) -> int:
    return -(-position // _ALIGN) * _ALIGN
