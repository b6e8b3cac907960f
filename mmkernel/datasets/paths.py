"""Many relative paths in a few arrays, in memory or in a file that all processes share."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .index_file import read_index

CHUNK = 1 << 16  # paths that an iteration makes at once


def strings(buffer: np.ndarray, ends: np.ndarray) -> list[str]:
    """The strings of ``buffer``, the i-th between ends[i] and ends[i + 1]."""
    data, start, ends = buffer[int(ends[0]) : int(ends[-1])].tobytes(), int(ends[0]), ends.tolist()
    return [os.fsdecode(data[a - start : b - start]) for a, b in itertools.pairwise(ends)]


class Paths(Sequence):
    """N paths as strings, made when they are asked for: each string of a list would cost some 100 bytes, in every process.

    arrays: ``names`` uint8, the bytes of the file names, one after the other; ``ends`` (N + 1,) int64, where they begin and
    end in it; ``folder`` (N,) int32, the number of the folder of each; ``folders`` uint8 and ``folder_ends`` (F + 1,) the same
    of the folders, with their last '/'. Maps of a file travel to another process as the name of the file.
    about: what else was found. rows: those of the paths that are meant, in this order. below: what stands before each.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], about: dict[str, Any] | None = None) -> None:
        self.arrays, self.about = arrays, about or {}
        self.rows: np.ndarray | None = None
        self.below = ''
        self.file: tuple[Path, int] | None = None

    @classmethod
    def of(cls, paths: Sequence[str]) -> 'Paths':
        """From strings."""
        numbers: dict[str, int] = {}
        folder = [numbers.setdefault(path[: path.rfind('/') + 1], len(numbers)) for path in paths]
        names, ends = packed([os.fsencode(path[path.rfind('/') + 1 :]) for path in paths])
        folders, folder_ends = packed([os.fsencode(path) for path in numbers])
        folder = np.array(folder, np.int32)
        return cls(dict(names=names, ends=ends, folder=folder, folders=folders, folder_ends=folder_ends))

    @classmethod
    def stored(cls, file: Path, crc32: int | None = None) -> 'Paths':
        """From an index file; ValueError for one that is damaged, that is none, or that has other contents than ``crc32``."""
        about, arrays, found = read_index(file, crc32)
        check(arrays)
        paths = cls(arrays, about)
        paths.file = file, found
        return paths

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'arrays': None if self.file else self.arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.file:
            self.arrays = read_index(*self.file)[1]

    def __len__(self) -> int:
        return len(self.arrays['folder'] if self.rows is None else self.rows)

    def __getitem__(self, i: int) -> str:
        row = range(len(self.arrays['folder']))[i] if self.rows is None else int(self.rows[i])
        return self.below + self._folder(int(self.arrays['folder'][row])) + self._string('names', 'ends', row)

    def __iter__(self) -> Iterator[str]:
        folder, ends = self.arrays['folder'], self.arrays['ends']
        number, before = -1, ''
        for first in range(0, len(self), CHUNK):
            if self.rows is None:
                last = min(first + CHUNK, len(self))
                names, numbers = strings(self.arrays['names'], ends[first : last + 1]), folder[first:last].tolist()
            else:
                rows = self.rows[first : first + CHUNK]
                names, numbers = [self._string('names', 'ends', i) for i in rows.tolist()], folder[rows].tolist()
            for now, name in zip(numbers, names, strict=True):
                if now != number:
                    number, before = now, self.below + self._folder(now)
                yield before + name

    def __eq__(self, other: object) -> bool:
        """With any sequence of strings."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def _string(self, buffer: str, ends: str, i: int) -> str:
        a, b = self.arrays[ends][i : i + 2].tolist()
        return os.fsdecode(self.arrays[buffer][a:b].tobytes())

    def _folder(self, number: int) -> str:
        return self._string('folders', 'folder_ends', number)

    def take(self, rows: np.ndarray) -> 'Paths':
        """Those of ``rows``, in this order; the arrays are shared."""
        taken = self._copy()
        taken.rows = np.asarray(rows) if self.rows is None else self.rows[rows]
        return taken

    def under(self, root: str) -> 'Paths':
        """Each with ``root`` before it; the arrays are shared."""
        full = self._copy()
        full.below = os.path.join(root, self.below)
        return full

    def _copy(self) -> 'Paths':
        copy = Paths(self.arrays, self.about)
        copy.rows, copy.below, copy.file = self.rows, self.below, self.file
        return copy

    def folders(self) -> list[str]:
        """The folders, each with its last '/'; '' is the root."""
        return strings(self.arrays['folders'], self.arrays['folder_ends'])


def taken(paths: Sequence[str] | None, rows: np.ndarray) -> Sequence[str] | None:
    """Those of ``rows``; None of None."""
    if paths is None or isinstance(paths, Paths):
        return paths if paths is None else paths.take(rows)
    return [str(paths[i]) for i in rows.tolist()]


def packed(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(bytes one after the other, (N + 1,) where they begin and end)."""
    ends = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=ends[1:])
    return np.frombuffer(b''.join(texts), np.uint8), ends


def check(arrays: Mapping[str, np.ndarray]) -> None:
    """ValueError unless every number leads into the buffers, and every name is one below the folder that was scanned."""
    kinds = dict(names=np.uint8, ends=np.int64, folder=np.int32, folders=np.uint8, folder_ends=np.int64)
    if wrong := [key for key, kind in kinds.items() if key not in arrays or arrays[key].dtype != kind]:
        raise ValueError(f'has no array {wrong[0]} of {np.dtype(kinds[wrong[0]])}')
    names, ends, folder, folders, folder_ends = (arrays[key] for key in kinds)
    for text, limits, many in ((names, ends, len(folder)), (folders, folder_ends, len(folder_ends) - 1)):
        rise = len(limits) == many + 1 > 0 and limits[0] == 0 and limits[-1] == len(text)
        if not rise or any((np.diff(limits[k : k + (1 << 20) + 1]) < 0).any() for k in range(0, many, 1 << 20)):
            raise ValueError('has positions that lead out of its text')
    if len(folder) and not 0 <= folder.min() <= folder.max() < len(folder_ends) - 1:
        raise ValueError('has numbers of folders that are not there')
    if (names == ord('/')).any() or (names == 0).any():
        raise ValueError('has names that lead elsewhere')
    if any(path[:1] == '/' or '..' in path.split('/') for path in strings(folders, folder_ends)):
        raise ValueError('has folders that lead elsewhere')
