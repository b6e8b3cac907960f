"""Many strings in two arrays."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_MANY = 1 << 16


class Strings(Sequence):
    """Many strings in two arrays: all their bytes, uint8, and (N + 1) offsets. Path names keep bytes that are no UTF-8.

    A list of Python strings is copied page by page into every forked worker: reading one changes its reference count.
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

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _MANY):  # many at once: reading one of a map takes a microsecond
            ends = self.offsets[start : start + _MANY + 1].tolist()
            text = self.data[ends[0] : ends[-1]].tobytes()
            yield from (os.fsdecode(text[a - ends[0] : b - ends[0]]) for a, b in itertools.pairwise(ends))

    def check(self, count: int) -> None:
        """ValueError unless these are ``count`` strings, each within the bytes."""
        good = (
            count >= 0
            and self.data.dtype == np.uint8
            and self.offsets.dtype == np.int64
            and self.offsets.shape == (count + 1,)
        )
        good = good and self.offsets[0] == 0 and self.offsets[-1] == len(self.data)
        steps = range(0, count, _MANY) if good else ()
        if not good or any((np.diff(self.offsets[k : k + _MANY + 1]) < 0).any() for k in steps):
            raise ValueError('positions lead out of the text')
