"""The files below a folder, each once and in sorted order, listed by many threads."""

import heapq
import json
import math
import os
import warnings
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .paths import Paths
from .strings import Strings

THREADS = 16  # a file server answers many questions at once


class Listing(NamedTuple):
    """One folder: when it was changed last, and what is in it."""

    changed: int  # nanoseconds, read before the rest: what comes later shows
    names: bytes  # of its files, sorted, each with a NUL after it
    links: list[str]  # to files
    folders: list[tuple[str, bool]]  # names, and whether each is a link
    skipped: Counter  # {ending: number of files}


def walk(root: str | Path, suffixes: tuple[str, ...] = ('',), most: float = math.inf) -> Paths | None:
    """Files below ``root`` that end in one of ``suffixes`` (any case), relative, in sorted order; hidden names are left out.

    Links are followed, but no folder and no file comes twice: what lies below ``root`` comes under its own path, what lies
    elsewhere under the first link to it. A link to ``root`` or to a folder around it is a loop and leads nowhere. A warning
    counts what is left out, dead links too.
    More arrays of the paths: 'changed' (F,) times of change of the folders, those without files too; 'about', JSON with
    'left_out', the text of the warnings, and 'skipped', {ending: number} of other files. None for more than ``most`` files.
    OSError where a folder cannot be read.
    """
    root, suffixes = os.path.realpath(root), tuple(suffix.lower() for suffix in suffixes)
    seen = {str(folder) for folder in Path(root).parents}
    found: dict[str, tuple[str, Listing]] = {}  # folder: its true place, what is in it
    again: list[str] = []
    pool, count = ThreadPoolExecutor(THREADS), 0

    def ask(real: str) -> Future | None:
        return None if real in seen else pool.submit(_list, real, suffixes)

    try:
        # links wait until all folders are seen that no link leads to; threads list what waits meanwhile
        waiting: list[tuple[bool, list[str], str, str, Future | None]] = [(False, [], '', root, ask(root))]
        while waiting:
            _, _, inside, real, asked = heapq.heappop(waiting)
            if real in seen or asked is None:
                again.append(inside)
                continue
            seen.add(real)
            found[inside] = real, (listing := asked.result())
            count += listing.names.count(b'\0') + len(listing.links)
            if count > most:
                return None
            for name, link in listing.folders:
                path, place = os.path.join(inside, name), os.path.join(real, name)
                place = os.path.realpath(place) if link else place
                heapq.heappush(waiting, (link, path.split('/'), path, place, ask(place)))
        more, twice, dead = _linked_files(found, pool)
    finally:
        pool.shutdown(cancel_futures=True)
    reasons = ((again + twice, 'lead to what is listed under another name'), (dead, 'are links to nothing'))
    left_out = [
        f"'{root}': {len(paths)} folder(s) or file(s) {why} and are left out, e.g. '{paths[0]}'."
        for paths, why in reasons
        if paths
    ]
    for text in left_out:
        warnings.warn(text, stacklevel=2)
    skipped = sum((listing.skipped for _, listing in found.values()), Counter())
    about = json.dumps(dict(left_out=left_out, skipped=dict(skipped.most_common()))).encode()
    return Paths({**_arrays(found, more), 'about': np.frombuffer(about, np.uint8)})


def _list(folder: str, suffixes: tuple[str, ...]) -> Listing:
    changed, names, links, folders, others = os.stat(folder).st_mtime_ns, [], [], [], Counter()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == '.':
                continue
            link = entry.is_symlink()
            # entry.is_dir() alone raises where links lead in a circle
            if os.path.isdir(entry.path) if link else entry.is_dir():
                folders.append((name, link))
            elif name.lower().endswith(suffixes):
                (links if link else names).append(name)
            else:
                others[os.path.splitext(name)[1].lower() or 'no ending'] += 1
    return Listing(changed, _joined(names), links, folders, others)


def _joined(names: list[str]) -> bytes:
    return os.fsencode('\0'.join([*sorted(names), '']))


def _linked_files(
    found: dict[str, tuple[str, Listing]], pool: ThreadPoolExecutor
) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """{folder: names of links that lead to files of their own}, then the links to files listed elsewhere, and the dead ones."""
    links = sorted(
        ((inside, real, name) for inside, (real, listing) in found.items() for name in listing.links),
        key=lambda link: [*_parts(link[0]), link[2]],
    )
    more: dict[str, list[str]] = {}
    twice, dead, places, listed = [], [], set(), {}
    blobs = {real: listing.names for real, listing in found.values()} if links else {}
    for (inside, _, name), real in zip(links, pool.map(_target, links, chunksize=64), strict=True):
        folder, _, file = (real or '').rpartition('/')
        if folder in blobs and folder not in listed:
            listed[folder] = set(blobs[folder].split(b'\0'))
        if real is None:
            dead.append(os.path.join(inside, name))
        elif real in places or os.fsencode(file) in listed.get(folder, ()):
            twice.append(os.path.join(inside, name))
        else:
            places.add(real)
            more.setdefault(inside, []).append(name)
    return more, twice, dead


def _target(link: tuple[str, str, str]) -> str | None:
    real = os.path.realpath(os.path.join(*link[1:]))
    return real if os.path.exists(real) else None


def _arrays(found: dict[str, tuple[str, Listing]], more: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """The arrays of ``Paths``: folders in sorted order, the names of each sorted."""
    order = sorted(found, key=_parts)
    texts, counts = [], np.zeros(len(order), np.int64)
    for k, inside in enumerate(order):
        text = found[inside][1].names if inside not in more else _merged(found[inside][1].names, more[inside])
        texts.append(text)
        counts[k] = text.count(b'\0')
    text = np.frombuffer(b''.join(texts), np.uint8)
    marks = np.flatnonzero(text == 0)
    folders = Strings.of(os.path.join(inside, '') for inside in order)
    return dict(
        names=text[text != 0],
        ends=np.concatenate([[0], marks - np.arange(len(marks))]),
        folder=np.repeat(np.arange(len(order), dtype=np.int32), counts),
        folders=folders.data,
        folder_ends=folders.offsets,
        changed=np.array([found[inside][1].changed for inside in order]),
    )


def _merged(names: bytes, more: list[str]) -> bytes:
    return _joined(os.fsdecode(names).split('\0')[:-1] + more)


def _parts(inside: str) -> list[str]:
    return inside.split('/') if inside else []
