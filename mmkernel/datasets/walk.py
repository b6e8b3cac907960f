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
    files, links, twice = _files(root, tuple(suffix.lower() for suffix in suffixes))
    again, dead = _linked_twice(root, files, sorted(links, key=_parts)) if links else (set(), set())
    _tell(root, twice + sorted(again), 'lead to what is listed under another name')
    _tell(root, sorted(dead), 'are links to nothing')
    paths = [
        f'{inside}/{name}' if inside else name for inside in sorted(files, key=_parts) for name in sorted(files[inside])
    ]
    left_out = again | dead
    return [path for path in paths if path not in left_out] if left_out else paths


def _parts(inside: str) -> list[str]:
    return inside.split('/') if inside else []


def _files(root: str, suffixes: tuple[str, ...]) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """{folder: names of its files}, those that are links, and the folders that came up again."""
    seen = {str(folder) for folder in Path(root).parents}
    files: dict[str, list[str]] = {}
    links, twice = [], []
    waiting = [(False, [], '')]  # links wait until all folders are seen that no link leads to
    while waiting:
        inside = heapq.heappop(waiting)[-1]
        folder = os.path.join(root, inside)
        real = os.path.realpath(folder)
        if real in seen:
            twice.append(inside)
            continue
        seen.add(real)
        names = files[inside] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith('.'):
                    continue
                link = entry.is_symlink()
                # entry.is_dir() alone raises where links lead in a circle
                if os.path.isdir(entry.path) if link else entry.is_dir():
                    path = os.path.join(inside, name)
                    heapq.heappush(waiting, (link, _parts(path), path))
                elif name.lower().endswith(suffixes):
                    names.append(name)
                    if link:
                        links.append(os.path.join(inside, name))
    return files, links, twice


def _linked_twice(root: str, files: dict[str, list[str]], links: list[str]) -> tuple[set[str], set[str]]:
    """Links to files that are listed already, and links to nothing."""
    linked = set(links)
    seen = {
        os.path.join(folder, name)
        for inside, names in files.items()
        for folder in (os.path.realpath(os.path.join(root, inside)),)
        for name in names
        if os.path.join(inside, name) not in linked
    }
    again, dead = set(), set()
    for path in links:
        real = os.path.realpath(os.path.join(root, path))
        if not os.path.exists(real):
            dead.add(path)
        elif real in seen:
            again.add(path)
        seen.add(real)
    return again, dead


def _tell(root: str, left_out: list[str], why: str) -> None:
    if left_out:
        warnings.warn(
            f"'{root}': {len(left_out)} folder(s) or file(s) {why} and are left out, e.g. '{left_out[0]}'.",
            stacklevel=4,
        )
