"""Many relative paths in a few arrays."""

import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np

from .kept_arrays import Arrays
from .strings import Strings

CHUNK = 1 << 16  # paths that an iteration makes at once


class Paths(Sequence):
    """N paths as strings, made when they are asked for: each string of a list would cost some 100 bytes, in every process.

    arrays: ``names`` uint8, the bytes of the file names, one after the other; ``ends`` (N + 1,) int64, where they begin and
    end in it; ``folder`` (N,) int32, the number of the folder of each; ``folders`` uint8 and ``folder_ends`` (F + 1,) the same
    of the folders, with their last '/'.
    ``rows``: those of the paths that are meant, in this order; None: all. ``below``: what stands before each.
    """

    def __init__(self, arrays: Arrays, rows: np.ndarray | None = None, below: str = '') -> None:
        self.arrays, self.rows, self.below = arrays, rows, below

    @classmethod
    def of(cls, paths: Sequence[str]) -> 'Paths':
        """From strings."""
        numbers: dict[str, int] = {}
        folder = [numbers.setdefault(path[: path.rfind('/') + 1], len(numbers)) for path in paths]
        names, folders = Strings.of(path[path.rfind('/') + 1 :] for path in paths), Strings.of(numbers)
        return cls(
            dict(names=names.data, ends=names.offsets, folder=np.array(folder, np.int32),
                 folders=folders.data, folder_ends=folders.offsets)
        )  # fmt: skip

    @property
    def names(self) -> Strings:
        """The file names alone, of all paths."""
        return Strings(self.arrays['names'], self.arrays['ends'])

    @property
    def folders(self) -> Strings:
        """The folders, each with its last '/'; '' is the root."""
        return Strings(self.arrays['folders'], self.arrays['folder_ends'])

    def __len__(self) -> int:
        return len(self.arrays['folder'] if self.rows is None else self.rows)

    def __getitem__(self, i: int) -> str:
        row = range(len(self))[i] if self.rows is None else int(self.rows[i])
        return self.below + self.folders[int(self.arrays['folder'][row])] + self.names[row]

    def __iter__(self) -> Iterator[str]:
        names, folders, number, before = self.names, self.folders, -1, ''
        order = self.arrays['folder'] if self.rows is None else self.arrays['folder'][self.rows]
        each = iter(names) if self.rows is None else (names[i] for i in _whole(self.rows))
        for now, name in zip(_whole(order), each, strict=True):
            if now != number:
                number, before = now, self.below + folders[now]
            yield before + name

    def __eq__(self, other: object) -> bool:
        """With any sequence of strings."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def take(self, rows: np.ndarray) -> 'Paths':
        """Those of ``rows``, in this order; the arrays are shared."""
        return Paths(self.arrays, np.asarray(rows) if self.rows is None else self.rows[rows], self.below)

    def under(self, root: str) -> 'Paths':
        """Each with ``root`` before it; the arrays are shared."""
        return Paths(self.arrays, self.rows, os.path.join(root, self.below))

    def check(self) -> None:
        """ValueError unless every number leads into the arrays, and every name is one below the folder that was scanned."""
        folder, names, folders = self.arrays['folder'], self.names, self.folders
        names.check(len(folder))
        folders.check(len(folders.offsets) - 1)
        if folder.dtype != np.int32 or len(folder) and not 0 <= folder.min() <= folder.max() < len(folders):
            raise ValueError('numbers of folders lead out of them')
        if np.isin(names.data, (0, ord('/'))).any() or any(f[:1] == '/' or '..' in f.split('/') for f in folders):
            raise ValueError('names lead out of the folder')


def taken(paths: Sequence[str] | None, rows: np.ndarray) -> Sequence[str] | None:
    """Those of ``rows``; None of None."""
    if paths is None or isinstance(paths, Paths):
        return paths if paths is None else paths.take(rows)
    return [str(paths[i]) for i in rows.tolist()]


def _whole(numbers: np.ndarray) -> Iterator[int]:
    """Its numbers as Python's, some at a time."""
    return itertools.chain.from_iterable(numbers[k : k + CHUNK].tolist() for k in range(0, len(numbers), CHUNK))
