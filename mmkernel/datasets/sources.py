"""A source: images and labels by number, without views. Everything else in this room reads images through it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .images import CorruptImageError


class Source:
    """Images 0 .. len-1.

    A subclass sets ``labels`` (int64, -1 where there is none) and ``classes`` and defines ``read(i)`` and ``name(i)``.
    Where images have several classes each it also sets ``targets`` (N, C) int8: 1 the class is there, 0 it is not, -1 it is
    neither trained on nor tested.
    It opens big arrays in ``_open()``, which is called on first use and again in each process that received a pickled
    copy: with forked workers the arrays are shared, with spawned ones only paths and labels travel.

    on_corrupt: 'raise' (default) or 'skip': an unreadable image i is replaced by the nearest readable one after it
    (wrapping round), together with its label. The choice does not depend on chance, workers or order; each replacement
    warns once per process and is recorded in ``substitutes`` {i: used instead}.
    """

    labels: np.ndarray
    classes: list[str]

    def __init__(self, on_corrupt: str = 'raise') -> None:
        if on_corrupt not in ('raise', 'skip'):
            raise ValueError(f"on_corrupt must be 'raise' or 'skip', got {on_corrupt!r}")
        self.on_corrupt = on_corrupt
        self.substitutes: dict[int, int] = {}
        self._arrays: Any = None

    def read(self, i: int) -> np.ndarray:
        """Image i as uint8 (H, W, C); CorruptImageError if it cannot be decoded."""
        raise NotImplementedError(f'{type(self).__name__} has no read(i), the image of record i.')

    def name(self, i: int) -> str:
        """Path or record of image i, for messages."""
        raise NotImplementedError(f'{type(self).__name__} has no name(i), what messages call record i.')

    def image_files(self) -> list[str] | None:
        """Every file that holds an image, by which caches notice a change; None: unknown, then they read all images."""
        return None

    def _open(self) -> Any:
        return None

    @property
    def arrays(self) -> Any:
        if self._arrays is None:
            self._arrays = self._open()
        return self._arrays

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_arrays': None}

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, i: int) -> int:
        return int(self.labels[i])

    def image(self, i: int) -> np.ndarray:
        """Image i as uint8 (H, W, C)."""
        return self.sample(i)[0]

    def sample(self, i: int) -> tuple[np.ndarray, int]:
        """Image i and its label, or those of its substitute."""
        if not -len(self) <= i < len(self):
            raise IndexError(f'image {i} asked for, but there are {len(self)}')
        i = i % len(self)
        used = self.substitutes.get(i, i)
        for _ in range(len(self)):
            try:
                image = self.read(used)
                break
            except CorruptImageError as error:
                if self.on_corrupt == 'raise':
                    raise
                used = (used + 1) % len(self)
                warnings.warn(f'{error} Using {self.name(used)} instead.', stacklevel=2)
        else:
            raise CorruptImageError(f'none of the {len(self)} images can be decoded, e.g. {self.name(i)}')
        if used != i:
            self.substitutes[i] = used
        return image, self.label(used)

    @classmethod
    def expected_length(cls, **cfg: Any) -> int | None:
        """Number of images this configuration has when complete, without looking at the disk; None if unknown."""
        return None


def targets_of(source: Any) -> np.ndarray | None:
    """``targets`` (N, C) of a source whose images have several classes each; None of any other."""
    targets = getattr(source, 'targets', None)
    return targets if isinstance(targets, np.ndarray) and targets.ndim == 2 else None


def existing_folder(path: str | os.PathLike, what: str, layout: str) -> Path:
    """``path`` if it is a folder; FileNotFoundError that says what should be there."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        found = 'is a file' if folder.exists() else 'does not exist'
        raise FileNotFoundError(
            f"{what}: folder '{folder}' {found} (working directory '{Path.cwd()}'). Expected: {layout}. "
            'Put the data or a link there, or point `root` of the source in the config to it.'
        )
    return folder


def one_of(value: str, name: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f'{name}={value!r} is unknown, expected one of {", ".join(allowed)}')
    return value
