"""Names of files, looked up among the files of a source."""

from __future__ import annotations

import difflib
import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .name_lists import FORMAT, Entry, readings


class Found(NamedTuple):
    """The rows of all files that an entry may mean; one for each if all is well."""

    entries: list[Entry]
    rows: list[list[int]]

    @property
    def left(self) -> int:
        return sum(len(rows) != 1 for rows in self.rows)


def rows_named(source: Any, names: str | Sequence[str]) -> np.ndarray:
    """Rows of ``source`` that the list ``names`` gives, a file or the names themselves, each once.

    A name is the path below the root, an absolute path, or the file name alone, with or without its extension; also quoted,
    with './' or backslashes. UTF-8 or UTF-16, any line ends. In a table it is the column that its header calls file, image,
    name or the like, without a header the first in which files are found.
    FileNotFoundError for a name that no file has, ValueError for one that several have and for a list without names.
    """
    files = file_names(source)
    if files is None:
        raise ValueError(
            f'Subset: {type(source).__name__} has no file names to look up in {str(names)[:80]!r}; use fraction.'
        )
    path, best = names if isinstance(names, (str, os.PathLike)) else 'names of the config', None
    files = [str(files[row]) for row in range(len(files))]
    for entries, levels in readings(names):
        found = _look_up(entries, files, getattr(source, 'root', None), levels)
        best = found if best is None or found.left < best.left else best
        if not best.left:
            break
    _check(best, files, path)
    rows = np.unique([rows[0] for rows in best.rows])
    if len(rows) < len(best.entries):
        again = len(best.entries) - len(rows)
        warnings.warn(
            f"Subset: {again} of {len(best.entries)} names in '{path}' come again; each image counts once.",
            stacklevel=4,
        )
    return rows


def file_names(source: Any) -> Sequence[str] | None:
    """Of each image: its path below the root, or its name in a pack; None where files have no names."""
    if isinstance(getattr(source, 'rows', None), np.ndarray) and hasattr(source, 'source'):
        inner = file_names(source.source)
        return None if inner is None else [str(inner[int(row)]) for row in source.rows]
    for field in ('paths', 'files'):
        if getattr(source, field, None) is not None:
            return getattr(source, field)
    return None


def _spellings(text: str, roots: list[str]) -> tuple[list[str], bool]:
    """What the entry may mean as a path below the root, the literal first; and whether it is a file name alone."""
    plain = text.strip()
    bare = plain[1:-1] if len(plain) > 1 and plain[0] == plain[-1] and plain[0] in '"\'`' else plain
    found = [text, plain, bare]
    for name in (bare, bare.replace('\\', '/')):
        found.append(os.path.normpath(name))
        for root in roots if '/' in name else ():
            if os.path.isabs(name) or '..' in name:
                found.append(os.path.relpath(os.path.join(root, name), root))
            found += _below(os.path.normpath(name), root)
    found += [unicodedata.normalize(form, name) for name in found if not name.isascii() for form in ('NFC', 'NFD')]
    return list(dict.fromkeys(found)), '/' not in bare.replace('\\', '/')


def _below(name: str, root: str) -> Iterator[str]:
    """'data/x/a.png' below the root '/home/me/data/x': 'a.png'."""
    parts, folders = name.split('/'), root.split('/')
    for k in range(1, min(len(parts), len(folders))):
        if parts[k - 1] == folders[-1] and parts[:k] == folders[-k:]:
            yield '/'.join(parts[k:])


def _look_up(entries: list[Entry], files: Sequence[str], root: str | None, levels: int) -> Found:
    """The rows of each entry by 1. the path, 2. the file name alone, 3. and 4. the same without extension, up to ``levels``."""
    roots = [] if root is None else list(dict.fromkeys((os.path.abspath(root), os.path.realpath(root))))
    spelled = [_spellings(entry.text, roots) for entry in entries]
    wanted = {name for names, _ in spelled for name in names}
    hits: list[dict[str, list[int]]] = [{}, {}, {}, {}]
    for row, path in enumerate(files):
        name = path[path.rfind('/') + 1 :]
        dot = name.rfind('.')
        end = dot - len(name) if dot > 0 else None
        for level, key in enumerate((path, name, path[:end], name[:end])[:levels]):
            if key in wanted:
                hits[level].setdefault(key, []).append(row)
    found = Found(entries, [])
    for names, alone in spelled:
        rows = (hits[k][name] for k in range(0, 4, 1 if alone else 2) for name in names if name in hits[k])
        found.rows.append(next(rows, []))
    return found


def _check(found: Found, files: Sequence[str], path: str | os.PathLike) -> None:
    """FileNotFoundError for names that no file has, ValueError for those that several have."""
    pairs = list(zip(found.entries, found.rows, strict=True))
    missing = [entry for entry, rows in pairs if not rows]
    if missing:
        near = _near(missing[0].text.strip(), files)
        raise FileNotFoundError(
            f"Subset: {len(missing)} of the {len(pairs)} names in '{path}' are not in the source, e.g. "
            f'{missing[0].text.strip()!r} ({missing[0].place})' + (f'; near it is {near!r}' if near else '') + '. '
            f'The data folder is incomplete, or the list belongs to another set. {FORMAT}'
        )
    several = [(entry, rows) for entry, rows in pairs if len(rows) > 1]
    if several:
        entry, rows = several[0]
        raise ValueError(
            f"Subset: {len(several)} of the {len(pairs)} names in '{path}' are those of several files, e.g. {entry.text.strip()!r} "
            f'({entry.place}): {str(files[rows[0]])!r} and {str(files[rows[1]])!r}. Write the path below the root.'
        )


def _near(text: str, files: Sequence[str], most: int = 20000) -> str | None:
    """The file whose name is most like ``text``, first among those that contain it but for its case and extension."""
    text = text.replace('\\', '/')
    stem = os.path.splitext(os.path.basename(text))[0].lower()
    alike = [k for k in range(len(files)) if stem in str(files[k]).lower()][:most] or range(min(len(files), most))
    by_name = {str(files[k]) if '/' in text else os.path.basename(str(files[k])): k for k in alike}
    found = difflib.get_close_matches(text, by_name, n=1, cutoff=0.4)
    return str(files[by_name[found[0]]]) if found else None
