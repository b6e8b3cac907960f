"""Features kept on disk, so that every benchmark of one encoder on one set of images computes them once.

One folder per entry, named by a hash of what the features depend on (``feature_keys``: weights, stage, every image file,
transform, precision, versions): ``features.npy`` (read memory-mapped), ``labels.npy`` and ``about.json`` with their checksums,
which are compared at every use. Entries appear whole or not at all, and may be deleted at any time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, barrier, get_dist_info
from torch import Tensor, nn

from mmkernel.distributed import on_first_process
from mmkernel.evaluation.feature_keys import encoder_digest
from mmkernel.evaluation.labels import Labels

FILES = ('features.npy', 'labels.npy')
LAYOUT = 2  # part of every key: raise it when the same inputs would give other features
Allocate = Callable[[str, tuple[int, ...], Any], np.ndarray]  # (name, shape, dtype) -> an array to write into


class CacheError(OSError):
    """A folder that features cannot be written into, or whose files are not what was written."""


class FeatureMismatchError(RuntimeError):
    """Stored features that other weights than the given ones have made."""


def stored(
    cache: str | Path, about: Mapping[str, Any], compute: Callable[[range, Allocate], None]
) -> tuple[Tensor, Tensor]:
    """(features, labels) of the entry that ``about`` names, computed first if there is none.

    ``compute(rows, allocate)`` fills the arrays 'features' and 'labels' that it gets from ``allocate`` with these rows.
    With W processes each computes N / W rows, and rank 0 joins the parts; the folder must be one that all ranks see.
    """
    about = {'layout': LAYOUT, **about}
    entry = Path(cache) / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]
    rank, world_size = get_dist_info()
    _check_same(entry.name)
    # rank 0 decides, so that all ranks take the same way even when another job makes the entry meanwhile
    folder = on_first_process(lambda: None if usable(entry, about) else new_folder(Path(cache)))
    if folder is not None:
        try:
            share = range(about['images'] * rank // world_size, about['images'] * (rank + 1) // world_size)
            compute(share, lambda name, shape, dtype: new_array(folder / f'{name}.{rank}.npy', shape, dtype))
            barrier()
            if rank == 0:
                join_parts(folder, world_size)
                seal(folder, about)
                publish(folder, entry)
            barrier()
        finally:
            if rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
    return read_entry(entry)


def read_features(entry: str | Path, model: nn.Module | None = None) -> tuple[Tensor, Tensor, dict]:
    """(features, ``Labels``, about) of one folder of a cache; FeatureMismatchError unless ``model`` has made them.

    CacheError where a file is not what was written.
    """
    entry = Path(entry)
    if not (entry / 'about.json').is_file():
        raise FileNotFoundError(f"'{entry}' holds no features: expected about.json, features.npy and labels.npy in it.")
    wrong = damage(entry)
    if wrong:
        raise CacheError(f"'{entry}' is damaged: {wrong}. Delete the folder; the next benchmark computes them again.")
    about = json.loads((entry / 'about.json').read_text())
    given = None if model is None else encoder_digest(model, about['stage'])
    if given not in (None, about['encoder']):
        raise FeatureMismatchError(
            f"The features in '{entry}' come from other weights ({about['encoder'][:12]}) than the encoder given "
            f'({given[:12]}). Name the checkpoint they were made with, or let them be computed again.'
        )
    features, labels = read_entry(entry)
    return features, Labels(labels, about.get('classes')), about


def _check_same(key: str) -> None:
    """RuntimeError on every rank alike if the ranks would compute different features."""
    keys = all_gather_object(key)
    if len(set(keys)) > 1:
        raise RuntimeError(
            f'The processes hold different encoders or images (keys {", ".join(k[:8] for k in keys)}): their features '
            'cannot be one set. Load the same checkpoint and seed the untrained encoder alike on every process.'
        )


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
