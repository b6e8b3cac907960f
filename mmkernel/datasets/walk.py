"""The files below a folder: each once, in an order that no file system decides."""

from __future__ import annotations

import heapq
import os
import warnings
from pathlib import Path


def walk(root: str | Path, suffixes: tuple[str, ...] = ('',)) -> list[str]:
    """Files below ``root`` that end in one of ``suffixes`` (any case), relative, in sorted order; hidden names are left out.

    Links are followed, but no folder and no file comes twice: what lies below ``root`` comes under its own path, what lies
    elsewhere under the first link to it. A link to ``root`` or to a folder around it is a loop and leads nowhere. A warning
    counts what is left out, dead links too. OSError where a folder cannot be read.
    """
    root = os.path.realpath(root)
    folders, twice = _folders(root)
    wanted = tuple(suffix.lower() for suffix in suffixes)
    files = {}
    for inside, entries in folders.items():
        chosen = [entry for entry in entries if entry.name.lower().endswith(wanted)]
        files[inside] = sorted(chosen, key=lambda entry: entry.name)
    again, dead = _linked_twice(root, files)
    _tell(root, twice + sorted(again), 'lead to what is listed under another name')
    _tell(root, sorted(dead), 'are links to nothing')
    left_out = again | dead
    paths = [os.path.join(inside, entry.name) for inside in sorted(files, key=_parts) for entry in files[inside]]
    return [path for path in paths if path not in left_out]


def _parts(inside: str) -> tuple[str, ...]:
    return Path(inside).parts


def _folders(root: str) -> tuple[dict[str, list[os.DirEntry]], list[str]]:
    """{folder: its entries that are no folders}, and the folders that came up again."""
    seen = {str(folder) for folder in Path(root).parents}
    found: dict[str, list[os.DirEntry]] = {}
    twice, waiting = [], [(False, (), '')]  # links wait until all folders are seen that no link leads to
    while waiting:
        inside = heapq.heappop(waiting)[-1]
        real = os.path.realpath(os.path.join(root, inside))
        if real in seen:
            twice.append(inside)
            continue
        seen.add(real)
        found[inside] = []
        with os.scandir(os.path.join(root, inside)) as entries:
            for entry in entries:
                if entry.name.startswith('.'):
                    continue
                if _is_folder(entry):
                    path = os.path.join(inside, entry.name)
                    heapq.heappush(waiting, (entry.is_symlink(), _parts(path), path))
                else:
                    found[inside].append(entry)
    return found, twice


def _is_folder(entry: os.DirEntry) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # the second asks no file system


def _linked_twice(root: str, files: dict[str, list[os.DirEntry]]) -> tuple[set[str], set[str]]:
    """Links to files that are listed already, and links to nothing."""
    ordered = [
        (os.path.join(inside, entry.name), entry) for inside in sorted(files, key=_parts) for entry in files[inside]
    ]
    links = [(path, entry) for path, entry in ordered if entry.is_symlink()]
    if not links:
        return set(), set()
    folders = {inside: os.path.realpath(os.path.join(root, inside)) for inside in files}
    seen = {os.path.join(folders[i], e.name) for i, found in files.items() for e in found if not e.is_symlink()}
    again, dead = set(), set()
    for path, entry in links:
        if not os.path.exists(entry.path):
            dead.add(path)
        elif (real := os.path.realpath(entry.path)) in seen:
            again.add(path)
        else:
            seen.add(real)
    return again, dead


def _tell(root: str, left_out: list[str], why: str) -> None:
    if left_out:
        warnings.warn(
            f"'{root}': {len(left_out)} folder(s) or file(s) {why} and are left out, e.g. '{left_out[0]}'.",
            stacklevel=4,
        )
