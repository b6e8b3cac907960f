"""A source: images and labels by number, without views. Everything else in this room reads images through it."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .images import CorruptImageError, check_pixels, scaled
from .label_checks import numbered_labels, whole_targets


class Source:
    """Images 0 .. len-1. A subclass defines the following; nothing else is used:

    ``labels``         (N,) whole numbers, -1 where there is none, or words, None where there is none: they are numbered by
                       ``classes`` where that is set before, otherwise in sorted order, which then is ``classes``. They give
                       the length. Required, set in ``__init__``.
    ``classes``        the names of the labels; [] where they have no names (default).
    ``read(i)``        image i as uint8 (H, W, C), or CorruptImageError. Required.
    ``scale``          (low, high), or high alone: values of 16 bits or floats that ``read`` gives become uint8, see ``scaled``.
    ``name(i)``        path or record of image i, for messages. Default: 'record i'.
    ``targets``        (N, C), only where images have several classes each: 1 the class is there, 0 it is not, -1 it is neither
                       trained on nor tested. Default: none.
    ``file_names()``   of each image, by which ``Subset`` finds it (``root``: the folder that they are below). Default: none.
    ``image_files()``  every file that holds an image, by which caches notice a change. Default None: they read all images.
    ``_open()``        big arrays, which are then in ``arrays``; called on first use and again in each process that received a
                       pickled copy: with forked workers they are shared, with spawned ones only paths and labels travel.
    ``lengths``        {split: its number of images when complete}, the default split first; or ``expected_length(**config)``,
                       a classmethod, where it depends on more. Default: unknown.

    Other labels, targets or images are refused, with the record.

    on_corrupt: 'raise' (default), 'skip' or a number: in place of an unreadable image i comes the nearest readable one after
    it (wrapping round), with its own number, label and targets. The choice does not depend on chance, workers or order. Each
    such image warns once, in whichever worker, and is listed in ``substitutes`` {i: used instead}. At most this number of
    images may be left out; 'skip' means one in a hundred, at least 10.
    """

    classes: list[str] = []
    lengths: dict[str, int] = {}
    on_corrupt: str | int = 'raise'
    scale: float | tuple[float, float] | None = None
    upright: bool = False  # photographs are turned by their EXIF orientation, and the log says so
    _arrays: Any = None

    def __init__(self, on_corrupt: str | int = 'raise') -> None:
        number = isinstance(on_corrupt, int) and not isinstance(on_corrupt, bool) and on_corrupt > 0
        if on_corrupt not in ('raise', 'skip') and not number:
            raise ValueError(
                f"on_corrupt must be 'raise', 'skip' or the number of images that may be left out, got {on_corrupt!r}"
            )
        self.on_corrupt = on_corrupt

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64, -1 where there is none; set to numbers or words."""
        if '_labels' not in self.__dict__:
            raise AttributeError(f'{type(self).__name__} has no labels: set self.labels, -1 for images without one.')
        return self._labels

    @labels.setter
    def labels(self, labels: Any) -> None:
        self._labels, self._numbered_by = numbered_labels(labels, self)
        if self._numbered_by and not len(self.classes):
            self.classes = self._numbered_by

    @property
    def targets(self) -> np.ndarray:
        """(N, C) int8 where images have several classes each; AttributeError for any other source."""
        if '_targets' not in self.__dict__:
            raise AttributeError(f'{type(self).__name__} has no targets: its images have one class each, or none.')
        return self._targets

    @targets.setter
    def targets(self, targets: Any) -> None:
        self._targets = whole_targets(targets, self)

    def read(self, i: int) -> np.ndarray:
        raise NotImplementedError(f'{type(self).__name__} has no read(i), the image of record i.')

    def name(self, i: int) -> str:
        return f'record {i}'

    def file_names(self) -> Sequence[str] | None:
        return None

    def image_files(self) -> Sequence[str] | None:
        return None

    def _open(self) -> Any:
        return None

    @classmethod
    def expected_length(cls, split: str | None = None, **_: Any) -> int | None:
        return next(iter(cls.lengths.values()), None) if split is None else cls.lengths.get(split)

    @property
    def arrays(self) -> Any:
        if self._arrays is None:
            self._arrays = self._open()
        return self._arrays

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_arrays': None}

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, i: int) -> np.ndarray:
        """Image i as uint8 (H, W, C)."""
        return self.record(i)[1]

    def label(self, i: int) -> int:
        return int(self.labels[i])

    def sample(self, i: int) -> tuple[np.ndarray, int]:
        """Image i and its label, or those of its substitute."""
        used, image = self.record(i)
        return image, self.label(used)

    def record(self, i: int) -> tuple[int, np.ndarray]:
        """The number of image i, or of its substitute, and that image. TypeError unless it is uint8 (H, W, C)."""
        if not -len(self) <= i < len(self):
            raise IndexError(f'image {i} was asked for, but there are only {len(self)}')
        used = i % len(self)
        if self.on_corrupt != 'raise' and self.damaged[used]:
            used = self._readable_after(used)
        while True:
            try:
                return used, self.pixels(used)
            except CorruptImageError as error:
                if self.on_corrupt == 'raise':
                    raise
                used = self._left_out(used, error)

    def pixels(self, i: int) -> np.ndarray:
        """Image i itself, never a substitute, checked: uint8 (H, W, C), contiguous."""
        image, who = self.read(i), lambda: f'{type(self).__name__}.read({i}), {self.name(i)},'
        if self.scale is not None:
            image = scaled(image, self.scale, who)
        check_pixels(image, who)
        return np.ascontiguousarray(image)

    @property
    def damaged(self) -> np.ndarray:
        """(N,) booleans, in memory that all workers share: the images found unreadable so far."""
        if '_damaged' not in self.__dict__:
            self._damaged = torch.zeros(len(self), dtype=torch.bool).share_memory_()
        return self._damaged.numpy()

    @property
    def substitutes(self) -> dict[int, int]:
        """{i: used instead} of the images found unreadable so far, by any worker."""
        return {int(i): self._readable_after(int(i)) for i in np.flatnonzero(self.damaged)}

    def _readable_after(self, i: int) -> int:
        readable = np.flatnonzero(~self.damaged)
        if not len(readable):
            raise CorruptImageError(f'none of the {len(self)} images can be decoded, e.g. {self.name(i)}')
        return int(readable[np.searchsorted(readable, i) % len(readable)])

    def _left_out(self, i: int, error: CorruptImageError) -> int:
        """The substitute of image i; CorruptImageError where too many are damaged."""
        self.damaged[i] = True
        count = int(self.damaged.sum())
        most = max(10, len(self) // 100) if self.on_corrupt == 'skip' else self.on_corrupt
        used = self._readable_after(i)
        if count > most:
            raise CorruptImageError(
                f'{count} of {len(self)} images cannot be decoded, but on_corrupt={self.on_corrupt!r} leaves out at most '
                f'{most}. Fetch the data again, or allow more with a number: on_corrupt={2 * count}. The latest: {error}'
            ) from error
        warnings.warn(f'{error} Using {self.name(used)} instead ({count} of at most {most}).', stacklevel=4)
        return used


def left_out_text(source: Any) -> str:
    """A line for the log about images that were replaced; empty if none was. Warnings of workers do not reach the log."""
    found = source.substitutes if isinstance(source, Source) and source.on_corrupt != 'raise' else {}
    if not found:
        return ''
    more = f' and {len(found) - 1} more' if len(found) > 1 else ''
    return f'{len(found)} of {len(source)} images cannot be decoded and were replaced by others: {source.name(min(found))}{more}.'


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
