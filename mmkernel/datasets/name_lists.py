"""Lists of file names in the formats that people write: what they say, read in one way after the other."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_HEADERS = (  # the more telling first
    'file filename file_name filepath file_path path image_path img_path image_name img_name image img name files images '
    'names image_id id'
).split()
_DELIMITERS = ',\t;| '
FORMAT = (
    'Expected one name per line (blank lines and lines that begin with # are skipped), a table with a column of names, or '
    'JSON: a list, an object or lines.'
)


class Entry(NamedTuple):
    """What stands for one image, and where."""

    text: str
    place: str


def readings(names: str | Sequence[str]) -> Iterator[tuple[list[Entry], int]]:
    """The list read in one way after the other, and how far to look (see ``_look_up``); ValueError if it holds nothing."""
    if not isinstance(names, (str, os.PathLike)):
        yield _entries(list(names), 'names'), 4
        return
    path = Path(names).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"Subset: there is no list '{names}' (working directory '{Path.cwd()}'). Expected a text file with one image "
            'name per line; where the published lists of ImageNet are stands in configs/_base_/imagenet_semi.py.'
        )
    text = text_of(path)
    if path.suffix.lower() == '.json' or text.strip()[:1] + text.strip()[-1:] in ('[]', '{}'):
        yield _entries(_json_items(text, path), str(path)), 4
        return
    lines = [Entry(line, f'line {k}') for k, line in enumerate(text.splitlines(), 1)]
    lines = [line for line in lines if line.text.strip() and not line.text.lstrip().startswith('#')]
    headed = bool(lines) and _is_header(lines[0].text)
    if len(lines) <= headed:
        raise ValueError(f"Subset: the list '{path}' holds no name. {FORMAT}")
    yield lines, 4
    if headed:
        yield lines[1:], 4
    for delimiter in _DELIMITERS:
        if any(delimiter in line.text for line in lines):
            yield from _columns(lines, delimiter)


def _json_items(text: str, path: Path) -> list[Any]:
    """Of a list; of an object that holds a list of names, lists by class, or names as its keys; or of one object per line."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError:
            raise ValueError(f"Subset: the list '{path}' is no JSON: {error}. {FORMAT}") from error
    if not isinstance(found, dict):
        return found if isinstance(found, list) else [found]
    named = _named(found)
    if isinstance(named, list):
        return named
    if all(isinstance(value, list) for value in found.values()):
        return [item for value in found.values() for item in value]
    return list(found) if named is None else [found]


def _columns(lines: list[Entry], delimiter: str) -> Iterator[tuple[list[Entry], int]]:
    """The columns that a header calls names. Where there is no such header: those that hold whole names, then the first, for
    a class number might be the name of a file without its extension; then without a first row of plain words."""
    table = [next(csv.reader([line.text.strip()], delimiter=delimiter, skipinitialspace=True), []) for line in lines]
    columns = [
        [Entry(row[c] if c < len(row) else '', line.place) for row, line in zip(table, lines, strict=True)]
        for c in range(len(table[0]))
    ]
    headed = [column for column in columns if _is_header(column[0].text)]
    headed.sort(key=lambda column: _HEADERS.index(_word(column[0].text)))
    yield from ((column[1:], 4) for column in headed)
    if not headed:
        tries = [(column, 2) for column in columns] + [(columns[0], 4)]
        yield from tries
        if len(lines) > 1 and not any(c.isdigit() or c in './\\' for c in lines[0].text):
            yield from ((column[1:], levels) for column, levels in tries)
    if delimiter == ' ':  # names with spaces before a class number
        yield [Entry(line.text.strip().rsplit(None, 1)[0], line.place) for line in lines], 4


def _named(record: dict[str, Any]) -> Any:
    """What stands under the most telling of the known headers; None without one."""
    columns = {_word(str(key)): value for key, value in record.items()}
    return next((columns[word] for word in _HEADERS if word in columns), None)


def _word(cell: str) -> str:
    return cell.strip().strip('"\'').lower().replace(' ', '_')


def _is_header(cell: str) -> bool:
    return _word(cell) in _HEADERS


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
            raise ValueError(f"Subset: entry {k} of the list '{path}' is {str(item)[:60]!r}, no name. {FORMAT}")
        entries.append(Entry(item, f'entry {k}'))
    if not entries:
        raise ValueError(f"Subset: the list '{path}' holds no name. {FORMAT}")
    return entries


def text_of(path: Path) -> str:
    """A text file in UTF-8 or UTF-16, with its byte order mark or without; ValueError if it is neither."""
    data = path.read_bytes()
    try:
        if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
            return data.decode('utf-16')
        if b'\0' in data[:200]:  # UTF-16 without its mark
            return data.decode('utf-16-le' if data[1:2] == b'\0' else 'utf-16-be')
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is no text ({error}).") from error
    return data.decode('utf-8-sig', 'surrogateescape')  # as the names of files are decoded
