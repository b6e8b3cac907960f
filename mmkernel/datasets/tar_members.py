"""The files in a tar archive and where their bytes lie (plain, ustar, pax and GNU headers), without reading the files."""

import os
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

BLOCK = 512
_WINDOW = 8 * BLOCK  # a small file and the header after it come with one read
_TRAILER = 1 << 16  # archives are filled up with zeros to a multiple of 10 240 bytes
_LONGEST = 1 << 20  # bytes of a header that names the next file
_FILES = b'0\0' + b'7'
_WITHOUT_BYTES = b'123456'  # links, devices, folders: whatever their size says
_COMPRESSED = {
    b'\x1f\x8b': ('gzip', 'gunzip'),
    b'BZh': ('bzip2', 'bunzip2'),
    b'\xfd7zXZ': ('xz', 'unxz'),
    b'(\xb5/\xfd': ('Zstandard', 'unzstd'),
}
Reader = Callable[[int, int], bytes]


class Member(NamedTuple):
    """A regular file in an archive."""

    name: str
    offset: int  # of its first byte
    size: int


def reader(file: int) -> Reader:
    """read(at, count): bytes of a file descriptor, fewer at its end; what lies close behind is read at once."""
    start, window = 0, b''

    def read(at: int, count: int) -> bytes:
        nonlocal start, window
        if not start <= at <= at + count <= start + len(window):
            start, window = at, os.pread(file, max(count, _WINDOW), at)
        return window[at - start : at - start + count]

    return read


def members(path: str, read: Reader, length: int) -> Iterator[Member]:
    """Each regular file of the archive ``path`` of ``length`` bytes, in order.

    ValueError that names the archive, and the file in it, where it is cut short, damaged, compressed, followed by another archive
    or none at all. A warning where its end mark is missing.
    """
    check_plain(path, read(0, BLOCK))
    at, count, last, long_name, long_size = 0, 0, None, None, None
    while header := read(at, BLOCK):
        place = f'after {count} file(s), the last {last!r}' if count else 'at its beginning'
        if len(header) < BLOCK:
            raise ValueError(f"'{path}' is cut short {place}. Fetch it again.")
        if not header.strip(b'\0'):
            if read(at, _TRAILER).strip(b'\0'):
                raise ValueError(
                    f"'{path}' goes on behind its end mark, {place}: it is several archives one after the other, of which "
                    "only the first would be read. Join them with 'tar --concatenate', or make one shard of each."
                )
            return
        try:
            name, size, kind = _parsed(header)
        except ValueError as error:
            what = 'is damaged' if count else 'is not a tar file'
            raise ValueError(
                f"'{path}' {what}: no header at byte {at}, {place} ({error}). Fetch or write it again."
            ) from None
        inside = at + BLOCK
        if kind in b'xX':  # pax: what it says counts for the next file
            said = _pax(path, _bytes(path, read, inside, size, length, place), place)
            long_name, long_size = said.get('path', long_name), int(said['size']) if 'size' in said else long_size
            if any(key.startswith('GNU.sparse') for key in said):
                kind = b'S'
        elif kind == b'L':
            text = _bytes(path, read, inside, size, length, place)
            long_name = os.fsdecode(text.split(b'\0', 1)[0])
        elif kind not in b'gKNV':
            name, long_name = long_name or name, None
            size, long_size = size if long_size is None else long_size, None
            if kind in _FILES and not name.endswith('/'):  # of the oldest tars, a folder is a file whose name ends so
                _check_length(path, inside + size, length, f'inside {name!r}, file {count + 1} in it')
                count, last = count + 1, name
                yield Member(name, inside, size)
        if kind == b'S':
            raise ValueError(f"'{path}' holds the sparse file {name!r}: write the shard without --sparse.")
        at = inside + (0 if kind in _WITHOUT_BYTES else -(-size // BLOCK) * BLOCK)
    if at > length or long_name is not None or long_size is not None:
        raise ValueError(f"'{path}' is cut short after {count} file(s), the last {last!r}. Fetch it again.")
    warnings.warn(
        f"'{path}' has no end mark: it was cut short between two files or never finished. {count} files of it are read.",
        stacklevel=2,
    )


def check_plain(path: str, start: bytes) -> None:
    """ValueError if the first bytes of an archive are those of a compressed or an empty file."""
    if not start:
        raise ValueError(f"'{path}' is empty: it has 0 bytes. Fetch it again.")
    for magic, (name, command) in _COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(
                f"'{path}' is compressed with {name}, so no image in it can be read without all those before it: an epoch "
                f"in random order is impossible. Uncompress it once: {command} '{path}'. Images are compressed already."
            )


def _parsed(header: bytes) -> tuple[str, int, bytes]:
    """(name, size, kind) of a header; ValueError unless it is one."""
    if _octal(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * 32:
        raise ValueError('its checksum is wrong')
    name, prefix = header[:100].split(b'\0', 1)[0], header[345:500].split(b'\0', 1)[0]
    if header[257:263] == b'ustar\0' and prefix:
        name = prefix + b'/' + name
    if header[124] & 128:  # base 256, for files from 8 GiB on
        size = int.from_bytes(header[125:136], 'big')
    else:
        size = _octal(header[124:136])
    return os.fsdecode(name), size, header[156:157]


def _octal(field: bytes) -> int:
    """A number of a header; ValueError for a sign too, since a negative size leads back."""
    digits = field.split(b'\0')[0].strip() or b'0'
    if not digits.isdigit():
        raise ValueError(f'{digits!r} is not an octal number')
    return int(digits, 8)


def _pax(path: str, text: bytes, place: str) -> dict[str, str]:
    """{key: value} of records '<length> <key>=<value>\\n'."""
    found = {}
    while text.strip(b'\0'):
        digits, _, rest = text.partition(b' ')
        key, equals, value = (
            rest[: max(0, int(digits or 0) - len(digits) - 2)].partition(b'=') if digits.isdigit() else (0,) * 3
        )
        if not equals or key == b'size' and not (value.isdigit() and len(value) < 20):
            raise ValueError(f"'{path}' is damaged: no pax header {place}. Fetch or write it again.")
        found[os.fsdecode(key)] = os.fsdecode(value)
        text = text[int(digits) :]
    return found


def _bytes(path: str, read: Reader, at: int, size: int, length: int, place: str) -> bytes:
    _check_length(path, at + size, length, f'inside a header, {place}')
    if size > _LONGEST:
        raise ValueError(f"'{path}' is damaged: a header of {size} bytes {place}. Fetch or write it again.")
    return read(at, size)


def _check_length(path: str, end: int, length: int, place: str) -> None:
    if end > length:
        raise ValueError(
            f"'{path}' is cut short {place}: bytes up to {end} are needed, it has {length}. Fetch it again."
        )
