"""A folder is listed once: what was found is kept in an index, and a later start looks only whether folders have changed."""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from mmkernel.home import home

from .index_file import write_index
from .paths import Paths
from .walk import THREADS, walk

INDEX_FROM = 20_000  # files; fewer are listed anew at each start
LAYOUT = 1
TICK = 2_000_000_000  # ns: what changes twice within it may show one time
T = TypeVar('T')


def scan(root: str | Path, suffixes: tuple[str, ...]) -> Paths:
    """``walk(root, suffixes)``, from the index where there is one and no folder has changed since.

    The index lies in ``root``/.mmkernel, or in the cache folder (``MMKERNEL_HOME``) where that cannot be written. It is used
    if every folder has the time of change (mtime) that it had: that shows files and folders that came, went or were renamed.
    It does not show a file that was written again under its name, which is read anew anyhow, nor that the target of a link
    to a file came or went. A damaged index is reported and made again. Without one, every process lists the folder by itself;
    each writes the same index, in one step, so none can disturb another. Below ``INDEX_FROM`` files there is none.
    """
    root, about = os.path.realpath(root), dict(layout=LAYOUT, suffixes=list(suffixes))
    places, began = index_places(root, about), time.time_ns()
    paths = stored(places, lambda place: _unchanged(place, root, about))
    if paths is None:
        paths = walk(root, suffixes)
        paths.about.update(about)
        if len(paths) >= INDEX_FROM:
            # a folder changed just now may change again within the same tick of its clock: it counts as changed
            changed = paths.arrays['changed']
            paths.arrays = {**paths.arrays, 'changed': np.where(changed > began - TICK, -1, changed)}
            paths = keep(places, paths.about, paths.arrays, Paths.stored) or paths
    else:
        for text in paths.about['left_out']:
            warnings.warn(text, stacklevel=3)
    return paths


def index_places(root: str, about: dict) -> tuple[Path, Path]:
    """Where the index of a folder that ``about`` describes may lie: beside the data, in the cache folder."""

    def name(*parts: str) -> str:
        return (
            hashlib.sha256(json.dumps([about, *parts]).encode('utf-8', 'surrogateescape')).hexdigest()[:16] + '.index'
        )

    return Path(root) / '.mmkernel' / name(), home() / 'indexes' / name(root)


def stored(places: tuple[Path, ...], read: Callable[[Path], T | None]) -> T | None:
    """What ``read`` makes of the first index that it can use; a damaged one is reported."""
    for place in places:
        try:
            found = read(place)
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            warnings.warn(f"The index '{place}' {error}; it is made again.", stacklevel=4)
            continue
        if found is not None:
            return found
    return None


def keep(places: tuple[Path, ...], about: dict, arrays: dict, read: Callable[[Path, int], T]) -> T | None:
    """The index written to the first place that takes it, and read from there; None where none does."""
    for place in places:
        try:
            _folder_for(place)
            return read(place, write_index(place, about, arrays))
        except OSError as error:
            refused = error
    warnings.warn(
        f"No index of the files can be kept ('{places[-1]}': {refused}); the next start lists them anew.", stacklevel=4
    )
    return None


def _folder_for(place: Path) -> None:
    """Make the folder of an index. One inside the data leaves them the time of change that they had: no image came or went."""
    if place.parent.is_dir():
        return
    before = os.stat(place.parents[1]) if place.parent.name == '.mmkernel' else None
    place.parent.mkdir(parents=True, exist_ok=True)
    if before is not None:
        with suppress(OSError):  # another's folder: it counts as changed once
            os.utime(place.parents[1], ns=(before.st_atime_ns, before.st_mtime_ns))


def _unchanged(place: Path, root: str, about: dict) -> Paths | None:
    """The paths of an index file; None if a folder has changed, ValueError if it is not one that was written here."""
    paths = Paths.stored(place)
    said, changed, folders = paths.about, paths.arrays.get('changed'), paths.folders()
    if {key: said.get(key) for key in about} != about or changed is None or len(changed) != len(folders):
        raise ValueError('is that of other files')
    skipped, left_out = said.get('skipped'), said.get('left_out')
    if not isinstance(skipped, dict) or not isinstance(left_out, list) or not all(isinstance(t, str) for t in left_out):
        raise ValueError('lacks what it should say')
    parts = [folders[k : k + 1024] for k in range(0, len(folders), 1024)]
    with ThreadPoolExecutor(THREADS) as pool:
        now = [
            time for part in pool.map(lambda part: [_changed(root, folder) for folder in part], parts) for time in part
        ]
    return paths if np.array_equal(changed, now) else None


def _changed(root: str, folder: str) -> int:
    try:
        return os.stat(os.path.join(root, folder)).st_mtime_ns
    except OSError:
        return -2
