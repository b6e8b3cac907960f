"""Lists of files as people write them, plain text, tables or JSON: what each line may name, and with which label."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

_HEADERS = (  # the more specific first
    'file filename file_name filepath file_path path image_path img_path image_name img_name image img name files images '
    'names image_id id'
).split()
_LABELS = 'label class class_name label_name category species target wnid class_id label_id category_id'.split()
FORMAT = 'Expected one name per line (# begins a comment), a table with a column of names, or JSON.'


class Reading(NamedTuple):
    """One way to read a list: (name, label or None) of each item, and the places of the items in the list."""

    items: Sequence[Any]
    places: Sequence[int]
    pick: Callable[[Any], tuple[str, str | None]]
    levels: int = 4  # how far to look for a name, see ``names.look_up``
    labelled: bool = False
    unit: str = 'line'

    def place(self, k: int) -> str:
        return f'{self.unit} {self.places[k]}'


def readings(names: str | Sequence[str], column: str | None = None, owner: str = 'Subset') -> Iterator[Reading]:
    """The list read in one way after the other, the likelier first. ``column``: the header of the labels, if it is known."""
    if not isinstance(names, (str, os.PathLike)):
        yield _entries(list(names), 'names', column, owner)
        return
    path = Path(names).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{owner}: there is no list '{names}' (working directory '{Path.cwd()}'). The lists of ImageNet: "
            'configs/_base_/imagenet_semi.py says where they are published.'
        )
    text = text_of(path)
    if path.suffix.lower() == '.json' or text.strip()[:1] + text.strip()[-1:] in ('[]', '{}'):
        yield _entries(_json_items(text, path, owner), str(path), column, owner)
        return
    lines, places = [], []
    for k, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith('#'):
            lines.append(line)
            places.append(k)
    headed = bool(lines) and _word(lines[0]) in _HEADERS
    whole = Reading(lines, places, lambda line: (line, None))
    yield whole if len(lines) > headed else whole._replace(items=[])
    if headed:
        yield whole._replace(items=lines[1:], places=places[1:])
    for delimiter in ',\t;| ':
        if any(delimiter in line for line in lines):
            yield from _columns(lines, places, delimiter, column)


def _columns(lines: list[str], places: list[int], delimiter: str, label: str | None) -> Iterator[Reading]:
    """The columns whose header means names. Without such a header: each column, matched with extensions only, then the first
    column without them, since a class number could match a file name; then the same without a first row of plain words."""
    first = _cells(lines[0], delimiter)
    words = [_word(cell) for cell in first]

    def reading(c: int, skip: int, levels: int = 4) -> Reading:
        known = [words.index(word) for word in ([_word(label)] if label else _LABELS) if word in words]
        other = known[0] if known else 1 - c if len(words) == 2 and not label else None
        pick = partial(_pick, delimiter=delimiter, column=c, label=other, width=len(words))
        return Reading(lines[skip:], places[skip:], pick, levels, other not in (None, c))

    headed = [c for word in _HEADERS for c in range(len(words)) if words[c] == word]
    yield from (reading(c, 1) for c in headed)
    if not headed:
        tries = [(c, 2) for c in range(len(words))] + [(0, 4)]
        yield from (reading(c, 0, levels) for c, levels in tries)
        if len(lines) > 1 and not any(c.isdigit() or c in './\\' for c in lines[0]):
            yield from (reading(c, 1, levels) for c, levels in tries)
    if delimiter == ' ' and not label:  # names with spaces before a class, a name before a class with spaces
        for split in (str.rsplit, str.split):
            pick = partial(_halves, split=split)
            yield Reading(lines, places, pick, 4, all(len(line.split()) > 1 for line in lines))


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line.strip()], delimiter=delimiter, skipinitialspace=True), [])


def _pick(line: str, delimiter: str, column: int, label: int | None, width: int) -> tuple[str, str | None]:
    cells = _cells(line, delimiter)
    name = cells[column] if column < len(cells) else ''
    return name, cells[label] if label is not None and len(cells) == width else None


def _halves(line: str, split: Callable) -> tuple[str, str | None]:
    name, *label = split(line.strip(), None, 1)
    return name, label[0] if label else None


def _json_items(text: str, path: Path, owner: str) -> list[Any]:
    """Of a list; of an object that holds a list of names, lists by class, or names as its keys; or of one object per line."""
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except (json.JSONDecodeError, RecursionError):
            raise ValueError(f"{owner}: the list '{path}' is not valid JSON: {error}. {FORMAT}") from error
    if isinstance(found, dict):
        if isinstance(named := _value(found, _HEADERS), list):
            return named
        if all(isinstance(value, list) for value in found.values()):
            return [(item, key) if isinstance(item, str) else item for key, value in found.items() for item in value]
        return list(found.items()) if named is None else [found]
    return found if isinstance(found, list) else [found]


def _value(record: dict[str, Any], words: Sequence[str]) -> Any:
    """The value under the first of the ``words`` that is a key; None without one."""
    columns = {_word(str(key)): value for key, value in record.items()}
    return next((columns[word] for word in words if word in columns), None)


def _word(cell: str) -> str:
    return cell.strip().strip('"\'').lower().replace(' ', '_')


def _entries(items: list[Any], path: str, column: str | None, owner: str) -> Reading:
    """Of names, or of records or pairs that hold one."""
    pairs = []
    for k, item in enumerate(items, 1):
        label = None
        if isinstance(item, dict):
            label = _value(item, [_word(column)] if column else _LABELS)
            item = _value(item, _HEADERS)
        elif isinstance(item, (list, tuple)):  # a name and its class
            name = next((value for value in item if isinstance(value, (str, os.PathLike))), item)
            label = next((value for value in item if value is not name), None) if len(item) == 2 else None
            item = name
        item = os.fspath(item) if isinstance(item, os.PathLike) else item
        if not isinstance(item, str):
            raise ValueError(f"{owner}: entry {k} of the list '{path}' is {str(item)[:60]!r}, not a name. {FORMAT}")
        if isinstance(label, bool) or not isinstance(label, (str, int, float, type(None))):
            raise ValueError(
                f"{owner}: the label of entry {k} of the list '{path}' is {str(label)[:60]!r}; expected one class, a word or a "
                'whole number.'
            )
        pairs.append((item, None if label is None else str(label)))
    labelled = any(label is not None for _, label in pairs)
    return Reading(pairs, range(1, len(pairs) + 1), lambda pair: pair, 4, labelled, 'entry')


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
