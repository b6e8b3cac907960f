"""Lists of file names (plain text, tables, JSON), looked up among the files of a source."""

import csv
import difflib
import json
import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .walk import text_of

_HEADERS = (  # the more specific first
    'file filename file_name filepath file_path path image_path img_path image_name img_name image img name files images '
    'names image_id id'
).split()
FORMAT = 'Expected one name per line (# begins a comment), a table with a column of names, or JSON.'


class Entry(NamedTuple):
    """The text that names one image, and its line or entry in the list."""

    text: str
    place: str


def rows_named(source: Any, names: str | Sequence[str]) -> np.ndarray:
    """Rows of ``source`` that the list ``names`` gives, a file or the names themselves, each once.

    A name is the path below the root, an absolute path, or the file name alone, with or without its extension; also quoted,
    with './' or backslashes. In a table it is the column that its header calls file, image, name or the like, without a
    header the first in which files are found. FileNotFoundError for a name that no file has, ValueError for one of several.
    """
    files = source.file_names()
    if files is None:
        raise ValueError(f'Subset: {type(source).__name__} has no file names to look up names in; use fraction.')
    files, best = [str(files[row]) for row in range(len(files))], None
    path, root = names if isinstance(names, (str, os.PathLike)) else 'names', getattr(source, 'root', None)
    for entries, levels in _readings(names):
        if not entries:
            raise ValueError(f"Subset: the list '{path}' holds no name. {FORMAT}")
        found = list(zip(entries, _look_up(entries, files, root, levels), strict=True))
        bad = [(entry, rows) for entry, rows in found if len(rows) != 1]
        if best is None or len(bad) < len(best[1]):
            best = found, bad
        if not bad:
            break
    found, bad = best
    if bad:
        entry, rows = min(bad, key=lambda pair: len(pair[1]))  # missing ones first
        name, alike = entry.text.strip(), sum(bool(other) == bool(rows) for _, other in bad)
        which = f"Subset: {alike} of the {len(found)} names in '{path}' are"
        if rows:
            raise ValueError(
                f'{which} the names of several files, e.g. {name!r} ({entry.place}): {files[rows[0]]!r} and {files[rows[1]]!r}. '
                'Write the path below the root.'
            )
        near = difflib.get_close_matches(name.replace('\\', '/'), files[:20000], n=1, cutoff=0.4)
        raise FileNotFoundError(
            f'{which} not in the source, e.g. {name!r} ({entry.place})' + (f'; the nearest is {near[0]!r}' if near else '')
            + f'. The data folder is incomplete, or the list belongs to another set. {FORMAT}'
        )  # fmt: skip
    rows = np.unique([rows[0] for _, rows in found])
    if again := len(found) - len(rows):
        warnings.warn(
            f"Subset: {again} of {len(found)} names in '{path}' are repeated; each counts once.", stacklevel=3
        )
    return rows


def _look_up(entries: list[Entry], files: Sequence[str], root: str | None, levels: int) -> list[list[int]]:
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
    return [
        next((hits[k][name] for k in range(0, 4, 1 if alone else 2) for name in names if name in hits[k]), [])
        for names, alone in spelled
    ]


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


def _readings(names: str | Sequence[str]) -> Iterator[tuple[list[Entry], int]]:
    """The list read in one way after the other, and how far to look (see ``_look_up``)."""
    if not isinstance(names, (str, os.PathLike)):
        yield _entries(list(names), 'names'), 4
        return
    path = Path(names).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"Subset: there is no list '{names}' (working directory '{Path.cwd()}'). The lists of ImageNet: "
            'configs/_base_/imagenet_semi.py says where they are published.'
        )
    text = text_of(path)
    if path.suffix.lower() == '.json' or text.strip()[:1] + text.strip()[-1:] in ('[]', '{}'):
        yield _entries(_json_items(text, path), str(path)), 4
        return
    lines = [Entry(line, f'line {k}') for k, line in enumerate(text.splitlines(), 1)]
    lines = [line for line in lines if line.text.strip() and not line.text.lstrip().startswith('#')]
    headed = bool(lines) and _word(lines[0].text) in _HEADERS
    yield (lines if len(lines) > headed else []), 4
    if headed:
        yield lines[1:], 4
    for delimiter in ',\t;| ':
        if any(delimiter in line.text for line in lines):
            yield from _columns(lines, delimiter)


def _columns(lines: list[Entry], delimiter: str) -> Iterator[tuple[list[Entry], int]]:
    """The columns whose header means names. Without such a header: each column, matched with extensions only, then the first
    column without them, since a class number could match a file name; then the same without a first row of plain words."""
    table = [next(csv.reader([line.text.strip()], delimiter=delimiter, skipinitialspace=True), []) for line in lines]
    columns = [
        [Entry(row[c] if c < len(row) else '', line.place) for row, line in zip(table, lines, strict=True)]
        for c in range(len(table[0]))
    ]
    headed = [column for word in _HEADERS for column in columns if _word(column[0].text) == word]
    yield from ((column[1:], 4) for column in headed)
    if not headed:
        tries = [(column, 2) for column in columns] + [(columns[0], 4)]
        yield from tries
        if len(lines) > 1 and not any(c.isdigit() or c in './\\' for c in lines[0].text):
            yield from ((column[1:], levels) for column, levels in tries)
    if delimiter == ' ':  # names with spaces before a class number
        yield [Entry(line.text.strip().rsplit(None, 1)[0], line.place) for line in lines], 4


def _json_items(text: str, path: Path) -> list[Any]:
    """Of a list; of an object that holds a list of names, lists by class, or names as its keys; or of one object per line."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError:
            raise ValueError(f"Subset: the list '{path}' is not valid JSON: {error}. {FORMAT}") from error
    if isinstance(found, dict):
        if isinstance(named := _named(found), list):
            return named
        if all(isinstance(value, list) for value in found.values()):
            return [item for value in found.values() for item in value]
        return list(found) if named is None else [found]
    return found if isinstance(found, list) else [found]


def _named(record: dict[str, Any]) -> Any:
    """The value under the most specific of the known headers; None without one."""
    columns = {_word(str(key)): value for key, value in record.items()}
    return next((columns[word] for word in _HEADERS if word in columns), None)


def _word(cell: str) -> str:
    return cell.strip().strip('"\'').lower().replace(' ', '_')


def _entries(items: list[Any], path: str) -> list[Entry]:
    """Of names, or of records that hold one."""
    entries = []
    for k, item in enumerate(items, 1):
        if isinstance(item, dict):
            item = _named(item)
        elif isinstance(item, (list, tuple)):  # a name and its class
            item = next((value for value in item if isinstance(value, str)), item)
        elif isinstance(item, os.PathLike):
            item = os.fspath(item)
        if not isinstance(item, str):
            raise ValueError(f"Subset: entry {k} of the list '{path}' is {str(item)[:60]!r}, not a name. {FORMAT}")
        entries.append(Entry(item, f'entry {k}'))
    return entries
