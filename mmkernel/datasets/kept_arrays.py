"""Arrays that are made once and kept in a file, such as an index of images: checked and mapped when read, made again if damaged."""

import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

Arrays = dict[str, np.ndarray]
_MAGIC = b'mmkernel arrays 1\n'
_ALIGN = 64


class Strings(Sequence):
    """Many strings in two arrays: all their bytes, uint8, and (N + 1) offsets. Path names keep bytes that are no UTF-8.

    A list of a million Python strings is copied page by page into every forked worker, because reading one changes its
    reference count.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        self.data, self.offsets = data, offsets

    @classmethod
    def of(cls, strings: Iterable[str]) -> 'Strings':
        encoded = [os.fsencode(each) for each in strings]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
        return cls(np.frombuffer(b''.join(encoded), np.uint8), offsets)

    @classmethod
    def joined(cls, parts: Sequence['Strings']) -> 'Strings':
        """One after the other."""
        begin = np.cumsum([0] + [len(part.data) for part in parts])
        offsets = [part.offsets[1:] + start for part, start in zip(parts, begin[:-1], strict=True)]
        return cls(np.concatenate([part.data for part in parts]), np.concatenate([np.zeros(1, np.int64), *offsets]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        i = range(len(self))[i]
        return os.fsdecode(self.data[self.offsets[i] : self.offsets[i + 1]].tobytes())


def kept(places: Sequence[Path], about: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """The arrays of ``make()``, mapped from the first of the files ``places`` that holds them, else made and written.

    about: all that they depend on, as JSON can write it; a file of another ``about`` is replaced. A damaged one is too, with
    a warning. The first place whose folder can be written is taken; where none can, a warning says so, and the arrays stay in
    memory. Of several processes that start together one makes them. A file appears whole or not at all.
    """
    about = json.loads(json.dumps(about))
    for place in places:
        if (found := _good(place, about)) is not None:
            return found
    place = next((place for place in places if _writable(place.parent)), None)
    if place is None:
        _not_kept(places, 'no folder can be written')
        return make()
    with FileLock(place.with_name(f'.{place.name.lstrip(".")}.lock')):
        found = _good(place, about)  # another process may have made them meanwhile
        if found is not None:
            return found
        arrays = make()
        try:
            _write(place, about, arrays)
        except OSError as error:
            _not_kept([place], str(error.strerror))
            return arrays
    return _read(place, about) or arrays


def _not_kept(places: Sequence[Path], why: str) -> None:
    where = ' or '.join(f"'{place.parent}'" for place in places)
    warnings.warn(
        f'An index cannot be kept in {where} ({why}): every start makes it again. Set MMKERNEL_HOME to a folder of yours.',
        stacklevel=4,
    )


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _good(path: Path, about: Mapping[str, Any]) -> Arrays | None:
    try:
        return _read(path, about)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        warnings.warn(f"'{path}' is damaged ({error}): it is made again.", stacklevel=4)
        return None


def _read(path: Path, about: Mapping[str, Any]) -> Arrays | None:
    """The arrays of a file; None if there is none, or one of something else. ValueError or another error if it is damaged."""
    if not path.is_file():
        return None
    data = np.memmap(path, np.uint8, mode='r')
    begin = len(_MAGIC) + 8
    if bytes(data[: len(_MAGIC)]) != _MAGIC:
        raise ValueError('its first line is another')
    size = int.from_bytes(bytes(data[len(_MAGIC) : begin]), 'little')
    header = json.loads(bytes(data[begin : begin + size]))
    if header['about'] != about:
        return None
    start = _aligned(begin + size)
    if len(data) != start + header['bytes'] or zlib.crc32(data[start:]) != header['crc32']:
        raise ValueError('its bytes are not those that were written')
    found = {}
    for name, (kind, shape, offset) in header['arrays'].items():
        count = int(np.prod(shape)) * np.dtype(kind).itemsize
        found[name] = data[start + offset : start + offset + count].view(kind).reshape(shape)
    return found


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
    number, temporary = tempfile.mkstemp(prefix=f'.{path.name.lstrip(".")}.', dir=path.parent)
    try:
        with open(number, 'wb') as file:
            file.write(_MAGIC + len(header).to_bytes(8, 'little') + header)
            file.write(b'\0' * (-file.tell() % _ALIGN))
            for array in plain.values():
                file.write(array.reshape(-1).view(np.uint8))
                file.write(b'\0' * (-array.nbytes % _ALIGN))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives it to its owner alone
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _aligned(position: int) -> int:
    return -(-position // _ALIGN) * _ALIGN
