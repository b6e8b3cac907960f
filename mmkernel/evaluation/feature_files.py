"""The folder of one set of features on disk: made whole or not at all, and seen when it is damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FILES = ('features.npy', 'labels.npy')


class CacheError(OSError):
    """A folder that features cannot be written into, or whose files are not what was written."""


def seal(folder: Path, about: Mapping[str, Any]) -> None:
    """Write about.json: ``about``, and a checksum of each file and of itself."""
    sums = {name: _checksum(folder / name) for name in FILES}
    content = {**about, 'crc32': {**sums, 'about': zlib.crc32(json.dumps(about).encode())}}
    (folder / 'about.json').write_text(json.dumps(content, indent=1) + '\n')


def damage(entry: Path) -> str | None:
    """Which file of an entry is not what was written; None: all are. Reads them whole, some gigabytes a second.

    A CRC of 32 bits: it sees what disks, copies and full quotas do, and is no signature.
    """
    try:
        about = json.loads((entry / 'about.json').read_text())
        if 'crc32' not in about:
            return 'it has no checksums, as an earlier version wrote it'
        sums = about.pop('crc32')
        if sums['about'] != zlib.crc32(json.dumps(about).encode()):
            return 'about.json has changed'
        changed = [name for name in FILES if sums[name] != _checksum(entry / name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f'{type(error).__name__}: {error}'
    return f'{" and ".join(changed)} changed since written' if changed else None


def _checksum(path: Path) -> int:
    total = 0
    with path.open('rb') as file:
        while block := file.read(2**24):
            total = zlib.crc32(block, total)
    return total


def usable(entry: Path, about: Mapping[str, Any]) -> bool:
    """Whether the entry is there, undamaged, and that of ``about``; what a disk or a broken copy has left is removed."""
    if not entry.is_dir():
        return False
    wrong = damage(entry)
    if wrong is None:
        found = json.loads((entry / 'about.json').read_text())
        found.pop('crc32')
        if found == json.loads(json.dumps(about)):
            return True
        wrong = 'it holds other features than its name says'
    warnings.warn(f"'{entry}' is damaged: its features are computed again ({wrong}).", stacklevel=2)
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
