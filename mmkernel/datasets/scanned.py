"""A folder is listed once: what was found is kept in an index, and a later start looks only whether folders have changed."""

import hashlib
import json
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mmkernel.home import home

from .kept_arrays import Arrays, kept
from .paths import Paths
from .walk import THREADS, walk

INDEX_FROM = 20_000  # files; fewer are listed anew at each start
LAYOUT = 1
TICK = 2_000_000_000  # ns: what changes twice within it may show one time


def scan(root: str | Path, suffixes: tuple[str, ...]) -> Paths:
    """``walk(root, suffixes)``, from the index where there is one and no folder has changed since.

    The index lies in ``root``/.mmkernel, or in the cache folder (``MMKERNEL_HOME``) where that cannot be written. It is used
    if every folder has the time of change (mtime) that it had: that shows files and folders that came, went or were renamed.
    It does not show a file that was written again under its name, which is read anew anyhow, nor that the target of a link
    to a file came or went. A damaged index is reported and made again. Of several processes on a machine one makes it, the
    others wait and read it. Up to ``INDEX_FROM`` files there is none, and each process lists them.
    """
    root, about = os.path.realpath(root), dict(layout=LAYOUT, suffixes=list(suffixes))
    places, listed = index_places(root, about), False
    if not any(map(os.path.isfile, places)):
        paths = walk(root, suffixes, INDEX_FROM)
        if paths is not None:
            return paths
        make_folder(root)

    def make() -> Arrays:
        nonlocal listed
        listed, began = True, time.time_ns()
        arrays = walk(root, suffixes).arrays
        # a folder changed just now may change again within the same tick of its clock: it counts as changed
        return {**arrays, 'changed': np.where(arrays['changed'] > began - TICK, -1, arrays['changed'])}

    paths = Paths(kept(places, about, make, lambda arrays: _unchanged(arrays, root)))
    for text in () if listed else about_files(paths)['left_out']:
        warnings.warn(text, stacklevel=3)
    return paths


def about_files(paths: Paths) -> dict[str, Any]:
    """What ``walk`` found besides the paths."""
    return json.loads(paths.arrays['about'].tobytes())


def index_places(root: str, about: dict[str, Any]) -> tuple[Path, Path]:
    """Where the index of a folder that ``about`` describes may lie: beside the data, in the cache folder."""

    def name(*parts: str) -> str:
        text = json.dumps([about, *parts]).encode('utf-8', 'surrogateescape')
        return hashlib.sha256(text).hexdigest()[:16] + '.index'

    return Path(root) / '.mmkernel' / name(), home() / 'indexes' / name(root)


def make_folder(root: str) -> None:
    """The folder of an index beside the data, which leaves them the time of change that they had: no image came or went."""
    before = os.stat(root)
    with suppress(OSError):  # data that others own: the index goes elsewhere, or the folder counts as changed once
        os.mkdir(os.path.join(root, '.mmkernel'))
        os.utime(root, ns=(before.st_atime_ns, before.st_mtime_ns))


def _unchanged(arrays: Arrays, root: str) -> bool:
    """Whether no folder has changed; ValueError for arrays that ``walk`` did not make."""
    paths = Paths(arrays)
    paths.check()
    said, changed, folders = about_files(paths), arrays['changed'], list(paths.folders)
    texts = said['left_out']
    if (
        not isinstance(said['skipped'], dict)
        or not all(isinstance(t, str) for t in texts)
        or len(changed) != len(folders)
    ):
        raise ValueError('it lacks what it should say')
    parts = [folders[k : k + 1024] for k in range(0, len(folders), 1024)]
    with ThreadPoolExecutor(THREADS) as pool:
        now = [when for part in pool.map(lambda part: [_changed(root, each) for each in part], parts) for when in part]
    return np.array_equal(changed, now)


def _changed(root: str, folder: str) -> int:
    try:
        return os.stat(os.path.join(root, folder)).st_mtime_ns
    except OSError:
        return -2
