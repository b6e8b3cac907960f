"""A file of arrays, mapped into memory: text about them as JSON, a checksum, no pickle."""

import json
import mmap
import os
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b'mmkernel'
_KINDS = ('|u1', '<i4', '<i8')


def write_index(path: Path, about: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Write the file in one step: a reader finds the old one or the new one, whoever else writes. The checksum of the arrays.

    Layout: 8 bytes 'mmkernel', 8 bytes length of the header, the header (JSON), then each array from a multiple of 64 on.
    """
    data = {key: np.ascontiguousarray(value, np.dtype(value.dtype).newbyteorder('<')) for key, value in arrays.items()}
    crc = 0
    for value in data.values():
        crc = zlib.crc32(value, crc)
    sizes = {key: [value.dtype.str, len(value)] for key, value in data.items()}
    header = json.dumps(dict(about=about, arrays=sizes, crc32=crc)).encode()
    handle, temporary = tempfile.mkstemp(prefix='.writing-', dir=path.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(MAGIC + len(header).to_bytes(8, 'little') + header)
            for value in data.values():
                file.write(bytes(-file.tell() % 64))
                file.write(value)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # others may read data that they share
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(temporary)
        raise
    return crc


def read_index(path: Path, crc32: int | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray], int]:
    """(about, arrays, checksum) of a file, its arrays mapped and read-only. All bytes are checked, unless the checksum is known.

    FileNotFoundError without a file; ValueError that says what is wrong with it.
    """
    with open(path, 'rb') as file:
        start = file.read(16)
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(start[8:], 'little')
        if start[:8] != MAGIC or len(start) < 16 or length > size - 16:
            raise ValueError('is not an index')
        try:
            header = json.loads(file.read(length))
            about, sizes, crc = header['about'], header['arrays'], header['crc32']
            kinds = [(key, np.dtype(kind), int(count)) for key, (kind, count) in sizes.items() if kind in _KINDS]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'has a damaged header ({type(error).__name__})') from error
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    arrays, position, found = {}, 16 + length, 0
    for key, kind, count in kinds:
        position += -position % 64
        end = position + count * kind.itemsize
        if count < 0 or end > size:
            raise ValueError('is cut short')
        arrays[key] = np.frombuffer(view, kind, count, position)
        found = crc if crc32 is not None else zlib.crc32(view[position:end], found)
        position = end
    if position != size or not isinstance(about, dict) or len(kinds) != len(sizes):
        raise ValueError('has a length or header that does not fit')
    if found != crc or crc32 not in (None, crc):
        raise ValueError('has other contents than were written' if crc32 is None else 'was written anew')
    return about, arrays, crc
