"""Which file a name means, among many."""

import os
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

LITERAL, SPELLED = (
    1 << 20,
    1 << 17,
)  # names looked up at once, as they stand and in their other spellings: what memory holds


def look_up(
    names: list[str], files: Sequence[str], root: str | None, levels: int
) -> tuple[np.ndarray, dict[int, list[int]]]:
    """(N,) the row of each name among ``files``, -1 for none, -2 for several; and those rows, {number of the name: rows}.

    By 1. the path, 2. the file name alone, 3. and 4. the same without extension, up to ``levels``.
    """
    rows, several = np.full(len(names), -1), {}

    def note(k: int, found: list[int]) -> None:
        rows[k] = -2 if len(found) > 1 else found[0] if found else -1
        if len(found) > 1:
            several[k] = found

    for start in range(0, len(names), LITERAL):  # almost all, as a rule
        some = names[start : start + LITERAL]
        (hits,) = _hits(set(some), files, 1)
        for k, name in enumerate(some, start):
            if name in hits:
                note(k, hits[name])
    left = np.flatnonzero(rows == -1)
    roots = [] if root is None else list(dict.fromkeys((os.path.abspath(root), os.path.realpath(root))))
    for start in range(0, len(left), SPELLED):
        some = left[start : start + SPELLED].tolist()
        spelled = [_spellings(names[k], roots) for k in some]
        hits = _hits({name for found, _ in spelled for name in found}, files, levels)
        for k, (found, alone) in zip(some, spelled, strict=True):
            places = (level[name] for level in hits[:: 1 if alone else 2] for name in found if name in level)
            note(k, next(places, []))
    return rows, several


def _hits(wanted: set[str], files: Iterable[str], levels: int) -> list[dict[str, list[int]]]:
    """For each level, {name: rows of the files that it is the name of}."""
    hits: list[dict[str, list[int]]] = [{} for _ in range(levels)]
    for row, path in enumerate(files):
        if levels == 1:
            keys = (path,)
        else:
            name = path[path.rfind('/') + 1 :]
            dot = name.rfind('.')
            end = dot - len(name) if dot > 0 else None
            keys = (path, name, path[:end], name[:end])[:levels]
        for level, key in enumerate(keys):
            if key in wanted:
                hits[level].setdefault(key, []).append(row)
    return hits


def _spellings(text: str, roots: list[str]) -> tuple[list[str], bool]:
    """What the entry may mean as a path below the root, the literal first; and whether it is a file name alone."""
    plain = text.strip()
    bare = plain[1:-1] if len(plain) > 1 and plain[0] == plain[-1] and plain[0] in '"\'`' else plain
    found = [text, plain, bare]
    for name in (bare, bare.replace('\\', '/')):
        found.append(os.path.normpath(name))
        parts = found[-1].split('/')
        for root in roots if '/' in name else ():
            if os.path.isabs(name) or '..' in name:
                found.append(os.path.relpath(os.path.join(root, name), root))
            # x/a.png below a root that ends in /x is a.png
            found += ['/'.join(parts[k:]) for k in range(1, len(parts)) if root.endswith('/' + '/'.join(parts[:k]))]
    found += [unicodedata.normalize(form, name) for name in found if not name.isascii() for form in ('NFC', 'NFD')]
    return list(dict.fromkeys(found)), '/' not in bare.replace('\\', '/')
