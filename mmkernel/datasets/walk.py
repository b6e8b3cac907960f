"""The files below a folder, each once and in sorted order; the text of a file of unknown encoding."""

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
    root, suffixes = os.path.realpath(root), tuple(suffix.lower() for suffix in suffixes)
    seen = {str(folder) for folder in Path(root).parents}
    files: dict[str, tuple[str, list[str]]] = {}  # folder: its true place, names of its files
    links, again, dead = [], [], []
    waiting = [(False, [], '')]  # links wait until all folders are seen that no link leads to
    while waiting:
        _, _, inside = heapq.heappop(waiting)
        folder = os.path.join(root, inside)
        real = os.path.realpath(folder)
        if real in seen:
            again.append(inside)
            continue
        seen.add(real)
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                path, link = os.path.join(inside, entry.name), entry.is_symlink()
                if entry.name.startswith('.'):
                    continue
                # entry.is_dir() alone raises where links lead in a circle
                if os.path.isdir(entry.path) if link else entry.is_dir():
                    heapq.heappush(waiting, (link, _parts(path), path))
                elif entry.name.lower().endswith(suffixes):
                    (links if link else names).append(path if link else entry.name)
        files[inside] = real, names
    places = {os.path.join(real, name) for real, names in files.values() for name in names} if links else set()
    for path in sorted(links, key=_parts):
        real = os.path.realpath(os.path.join(root, path))
        if real in places or not os.path.exists(real):
            (again if real in places else dead).append(path)
            continue
        places.add(real)
        files[os.path.dirname(path)][1].append(os.path.basename(path))
    for left_out, why in ((again, 'lead to what is listed under another name'), (dead, 'are links to nothing')):
        if left_out:
            warnings.warn(
                f"'{root}': {len(left_out)} folder(s) or file(s) {why} and are left out, e.g. '{left_out[0]}'.",
                stacklevel=2,
            )
    return [os.path.join(inside, name) for inside in sorted(files, key=_parts) for name in sorted(files[inside][1])]


def _parts(inside: str) -> list[str]:
    return inside.split('/') if inside else []


def text_of(path: Path) -> str:
    """A text file in UTF-8 or UTF-16, with its byte order mark or without; ValueError if it is neither."""
    data = path.read_bytes()
    try:
        if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
            return data.decode('utf-16')
        if b'\0' in data[:200]:  # UTF-16 without its mark
            return data.decode('utf-16-le' if data[1:2] == b'\0' else 'utf-16-be')
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not text ({error}).") from error
    return data.decode('utf-8-sig', 'surrogateescape')  # as the names of files are decoded
