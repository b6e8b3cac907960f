"""The folder of one set of features on disk: made whole or not at all, and seen when it is damaged."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class CacheError(OSError):
    """A folder that features cannot be written into."""


def is_whole(entry: Path, images: int) -> bool:
    """Whether the entry is there and can be used; what a failing disk or a copy that broke off has left is removed."""
    if not entry.is_dir():
        return False
    try:
        whole = all(len(array) == images for array in read_entry(entry))
    except (OSError, ValueError, EOFError):
        whole = False
    if whole:
        return True
    warnings.warn(f"'{entry}' is damaged: its features are computed again.", stacklevel=2)
    shutil.rmtree(entry)
    return False


def new_folder(cache: Path) -> Path:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix='.partial-', dir=cache))
    except OSError as error:
        raise CacheError(
            f"features cannot be kept in '{cache}' ({error.strerror}). Expected a folder that can be written: name another "
            'one (--cache FOLDER), or keep none (--no-cache).'
        ) from error


def new_array(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """On disk from the beginning: the features of a large set need not fit in memory."""
    array = np.lib.format.open_memmap(path, mode='w+', dtype=dtype, shape=shape)
    if hasattr(os, 'posix_fallocate'):  # else a full disk shows when a page is written, and kills the process
        try:
            with path.open('r+b') as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CacheError(
                    f"features of {array.nbytes / 1e6:,.0f} MB do not fit into '{path.parent.parent}' ({error.strerror}). "
                    'Delete old entries there, name another folder (--cache FOLDER), or keep none (--no-cache).'
                ) from error
    return array


def join_parts(folder: Path, parts: int) -> None:
    """Parts of the ranks, in rank order, as one file each. A rank of an empty share has written none."""
    for name in ('features', 'labels'):
        files = [path for r in range(parts) if (path := folder / f'{name}.{r}.npy').is_file()]
        if len(files) == 1:
            files[0].rename(folder / f'{name}.npy')
            continue
        arrays = [np.load(file, mmap_mode='r') for file in files]
        whole = new_array(folder / f'{name}.npy', (sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
        np.concatenate(arrays, out=whole)
        whole.flush()
        for file in files:
            file.unlink()


def publish(folder: Path, entry: Path) -> None:
    try:
        folder.rename(entry)
    except OSError:
        if not entry.is_dir():  # else another job was faster: its entry holds the same
            raise


def read_entry(entry: Path) -> tuple[Tensor, Tensor]:
    # mode 'c': pages are read when used, and a caller that writes changes its own copy, never the file
    return tuple(torch.from_numpy(np.load(entry / f'{name}.npy', mmap_mode='c')) for name in ('features', 'labels'))
