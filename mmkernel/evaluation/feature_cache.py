"""Cache of features on disk: all benchmarks of one encoder on one set of images compute them once.

A folder per entry, named by a hash of what they depend on (weights, stage, every image file, transform, precision, versions):
``features.npy`` (memory-mapped), ``labels.npy``, and ``about.json`` with checksums that are compared at every use. Entries
appear whole or not at all, and may be deleted at any time.
"""

import errno
import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, barrier, get_dist_info
from torch import Tensor

from mmkernel.distributed import on_first_process
from mmkernel.hashes import content, tensor_bytes
from mmkernel.limits import DAMAGED
from mmkernel.writing import drop_leftovers, temporary_name

LAYOUT = 3  # part of every key: raise it when the same inputs would give other features
NAMES = ('features', 'labels')
Allocate = Callable[[str, tuple[int, ...], Any], np.ndarray]  # (name, shape, dtype) -> an array to write into


def images_digest(dataset: Any, source: Any, transform: Any, looks: int = 16) -> str:
    """A hash of names, labels, the two configs (or objects), and ``looks`` images as the encoder sees them.

    The images reveal a transform whose code has changed; changed files are the matter of :func:`files_digest`.
    """
    inner, digest = dataset.source, hashlib.sha256()
    names = [inner.name(i) for i in range(len(inner))] if hasattr(inner, 'name') else None
    given = source if isinstance(source, Mapping) else str(type(source))
    for part in (given, transform, np.asarray(inner.labels).tolist(), names):
        try:
            digest.update(json.dumps(part).encode())
        except TypeError:
            digest.update(content(part))
    for i in np.linspace(0, len(dataset) - 1, min(looks, len(dataset))).astype(int).tolist():
        image = dataset[i]['inputs'][0]
        digest.update(f'{tuple(image.shape)}'.encode())
        digest.update(tensor_bytes(image))
    return digest.hexdigest()


def files_digest(source: Any) -> str:
    """A hash of name, size and times of every file that holds images of ``source``; of all images where no file does.

    A file that is written, replaced or repaired in place has another time of change (ctime). No file is read.
    """
    digest, files = hashlib.sha256(), source.image_files() if hasattr(source, 'image_files') else None
    for path in () if files is None else files:
        found = os.stat(path) if os.path.exists(path) else None
        state = found and (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        digest.update(os.fsencode(path) + f' {state}\n'.encode())
    for i in range(len(source)) if files is None else ():
        image = np.ascontiguousarray(source.sample(i)[0])
        digest.update(f'{image.shape} {image.dtype}'.encode())
        digest.update(image)
    return digest.hexdigest()


def stored(
    cache: str | Path, about: Mapping[str, Any], compute: Callable[[range, Allocate], None]
) -> tuple[Tensor, Tensor]:
    """(features, labels) of the entry that ``about`` names, computed first if there is none.

    ``compute(rows, allocate)`` fills the arrays 'features' and 'labels' that ``allocate`` gives it. With W processes each
    computes N / W rows, and rank 0 joins the parts; the folder must be one that all ranks see.
    """
    about = {'layout': LAYOUT, **about}
    entry = Path(cache) / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]
    rank, world_size = get_dist_info()
    keys = all_gather_object(entry.name)
    if len(set(keys)) > 1:  # on every rank alike
        raise RuntimeError(
            f'The processes hold different encoders or images (keys {", ".join(k[:8] for k in keys)}): load the same '
            'checkpoint, and seed the untrained encoder alike, on every process.'
        )
    # rank 0 decides for all ranks: another job may add the entry while they look
    folder = on_first_process(lambda: None if _usable(entry, about) else _new_folder(Path(cache)))
    if folder is not None:
        try:
            share = range(about['images'] * rank // world_size, about['images'] * (rank + 1) // world_size)
            compute(share, lambda name, shape, dtype: _new_array(folder / f'{name}.{rank}.npy', shape, dtype))
            barrier()
            if rank == 0:
                _publish(folder, entry, about, world_size)
            barrier()
        finally:
            if rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
    # mode 'c': pages are read when used, and a caller that writes changes its own copy, never the file
    return _arrays(entry)


def _arrays(entry: Path) -> tuple[Tensor, Tensor]:
    return tuple(torch.from_numpy(np.load(entry / f'{name}.npy', mmap_mode='c')) for name in NAMES)


def _usable(entry: Path, about: Mapping[str, Any]) -> bool:
    """Whether the entry is there, undamaged, and that of ``about``; a damaged one is removed, with a warning."""
    if not entry.is_dir():
        return False
    try:
        found, expected = json.loads((entry / 'about.json').read_text()), {**about, 'crc32': _checksums(entry)}
        fine = found == json.loads(json.dumps(expected)) and {len(each) for each in _arrays(entry)} == {about['images']}
        wrong = None if fine else 'not what was written'
    except DAMAGED as error:
        wrong = f'{type(error).__name__}: {error}'
    if wrong is None:
        return True
    warnings.warn(f"'{entry}' is damaged: its features are computed again ({wrong}).", stacklevel=2)
    with suppress(FileNotFoundError):  # another process was faster
        shutil.rmtree(entry.rename(temporary_name(entry)))  # at once: what another puts in its place stays
    return False


def _checksums(folder: Path) -> dict[str, int]:
    """CRCs of 32 bits of both files: against damage by disks, copies and full quotas, not against forgery."""
    sums = dict.fromkeys(NAMES, 0)
    for name in NAMES:
        with (folder / f'{name}.npy').open('rb') as file:
            while block := file.read(2**24):
                sums[name] = zlib.crc32(block, sums[name])
    return sums


def _refused(cache: Path, error: OSError, what: str = 'features') -> OSError:
    return OSError(
        f"{what} cannot be kept in '{cache}' ({error.strerror}). Delete old entries there, name another folder that can be "
        'written (--cache FOLDER), or keep none (--no-cache).'
    )


def _new_folder(cache: Path) -> Path:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        drop_leftovers(cache, 'features')
        folder = temporary_name(cache / 'features')
        folder.mkdir()
        return folder
    except OSError as error:
        raise _refused(cache, error) from error


def _new_array(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """On disk from the beginning: the features of a large set need not fit in memory."""
    array = np.lib.format.open_memmap(path, mode='w+', dtype=dtype, shape=shape)
    try:
        with path.open('r+b') as file:  # else a full disk is noticed when a page is written, which kills the process
            getattr(os, 'posix_fallocate', lambda *_: None)(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _refused(path.parent.parent, error, f'features of {array.nbytes / 1e6:,.0f} MB') from error
    return array


def _publish(folder: Path, entry: Path, about: Mapping[str, Any], parts: int) -> None:
    """Join the parts in rank order (a rank of an empty share has written none), add the checksums, and give it its name."""
    for name in NAMES:
        files = [path for r in range(parts) if (path := folder / f'{name}.{r}.npy').is_file()]
        if len(files) > 1:
            arrays = [np.load(file, mmap_mode='r') for file in files]
            whole = _new_array(folder / 'whole.npy', (sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
            np.concatenate(arrays, out=whole).flush()
            for file in files:
                file.unlink()
            files = [folder / 'whole.npy']
        files[0].rename(folder / f'{name}.npy')
    (folder / 'about.json').write_text(json.dumps({**about, 'crc32': _checksums(folder)}, indent=1) + '\n')
    try:
        folder.rename(entry)
    except OSError:
        if not entry.is_dir():  # else another job was faster, with the same features
            raise
