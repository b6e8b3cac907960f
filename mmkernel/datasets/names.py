"""Names of a list, looked up among the files of a source, and the labels that stand beside them."""

import difflib
import itertools
import os
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .list_files import FORMAT, Reading, readings
from .look_up import look_up
from .paths import Paths

LOOK = 500  # names of a long list, by which a way to read it is judged first


class Match(NamedTuple):
    """A reading of a list, the file of each of its names (-1: none, -2: several), and the files of those with several."""

    reading: Reading
    names: list[str]
    labels: list[str | None]
    rows: np.ndarray
    several: dict[int, list[int]]

    @property
    def bad(self) -> int:
        return int((self.rows < 0).sum())


def rows_named(source: Any, names: str | Sequence[str]) -> np.ndarray:
    """Rows of ``source`` that the list ``names`` gives, a file or the names themselves, rising, each once.

    A name is the path below the root, an absolute path, or the file name alone, with or without its extension; also quoted,
    with './' or backslashes. In a table it is the column that its header calls file, image, name or the like, without a
    header the first in which files are found. FileNotFoundError for a name that no file has, ValueError for one of several.
    """
    found = _matched(source, names, 'Subset', False, None)
    rows = np.unique(found.rows)
    _tell_repeated(found, rows, names, 'Subset', 4)
    return rows


def rows_labelled(
    source: Any, names: str | Sequence[str], labels: bool | str, classes: Sequence[str] | None, owner: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(rows in the order of the list, each once; their labels; names of the classes); see ``rows_named``.

    labels: True, the header of their column, or False: -1. The text '-1' is no label. classes: the classes that there are, in
    order; or those that occur, in sorted order, by number where all are whole numbers. A number among given classes that are
    no numbers is the position of its class. ValueError for a name without a label, with two, or with an unknown one.
    """
    found = _matched(source, names, owner, bool(labels), labels if isinstance(labels, str) else None)
    rows, first, where = np.unique(found.rows, return_index=True, return_inverse=True)
    if not labels:
        numbers, known = np.full(len(found.rows), -1), []
    else:
        numbers, known = _numbered(found, classes, names, owner)
        if len(wrong := np.flatnonzero(numbers != numbers[first][where])):
            k, j = int(wrong[0]), int(first[where[wrong[0]]])
            raise ValueError(
                f"{owner}: {len(np.unique(where[wrong]))} file(s) in '{_title(names)}' have several labels, e.g. "
                f'{found.names[k]!r}: {found.labels[j]!r} ({found.reading.place(j)}) and {found.labels[k]!r} '
                f'({found.reading.place(k)}). Each image has one class.'
            )
    _tell_repeated(found, rows, names, owner, 5)
    first = np.sort(first)
    return found.rows[first], numbers[first], known


def _title(names: str | Sequence[str]) -> str:
    return str(names) if isinstance(names, (str, os.PathLike)) else 'names'


def _tell_repeated(found: Match, rows: np.ndarray, names: str | Sequence[str], owner: str, level: int) -> None:
    if again := len(found.rows) - len(rows):
        text = f"{owner}: {again} of {len(found.rows)} names in '{_title(names)}' are repeated; each counts once."
        warnings.warn(text, stacklevel=level)


def _numbered(
    found: Match, classes: Sequence[str] | None, names: str | Sequence[str], owner: str
) -> tuple[np.ndarray, list[str]]:
    """The numbers of the labels, and the names of the classes."""
    texts = [_word(label) for label in found.labels]
    kinds = dict.fromkeys(texts)
    whole = all(kind and kind.removeprefix('-').isdigit() for kind in kinds)
    if classes is None:
        known = sorted((kind for kind in kinds if kind not in (None, '', '-1')), key=int if whole else None)
    else:
        known = list(classes)
    number = {name: k for k, name in enumerate(known)} | {'-1': -1}
    if classes is not None and whole and not kinds.keys() <= number.keys():
        number = {str(k): k for k in range(-1, len(known))}
    fractions = {kind for kind in kinds if _fraction(kind)} if classes is None else ()
    wrong = [k for k, text in enumerate(texts) if not text or text not in number or text in fractions]
    if wrong:
        k = wrong[0]
        raise ValueError(
            f"{owner}: {len(wrong)} of {len(texts)} labels in '{_title(names)}' are missing or unknown, e.g. "
            f'{found.labels[k]!r} of {found.names[k]!r} ({found.reading.place(k)}). Expected one class for each image, a word or '
            'a whole number (-1 for none)' + (f', of {", ".join(map(repr, known[:8]))}' if classes is not None else '') + '.'
        )  # fmt: skip
    return np.array([number[text] for text in texts], np.int64), known


def _word(label: str | None) -> str | None:
    """The label without spaces around it; 3.0, as tables write whole numbers, is 3."""
    label = label and label.strip()
    return label[:-2] if label and label.endswith('.0') and label[:-2].removeprefix('-').isdigit() else label


def _fraction(label: str | None) -> bool:
    try:
        return not float(label).is_integer()
    except (TypeError, ValueError):
        return False


def _matched(source: Any, names: str | Sequence[str], owner: str, labelled: bool, column: str | None) -> Match:
    """The first reading of the list in which every name is one file, or the error of the one that is nearest to that."""
    files, best = source.file_names(), None
    if files is None:
        raise ValueError(f'{owner}: {type(source).__name__} has no file names to look up names in; use fraction.')
    files = files if isinstance(files, Paths) else [str(file) for file in files]
    root = getattr(source, 'root', None)
    for reading in readings(names, column, owner):
        if not len(reading.items):
            raise ValueError(f"{owner}: the list '{_title(names)}' holds no name. {FORMAT}")
        if labelled and not reading.labelled:
            continue
        step = max(1, len(reading.items) // LOOK) if len(reading.items) > 10 * LOOK else 1
        match = _match(reading, step, files, root)
        if step > 1 and match.bad < len(match.rows):  # promising
            match = _match(reading, 1, files, root)
        if best is None or match.bad / len(match.rows) < best.bad / len(best.rows):
            best = match
        if not match.bad:
            return match
    if best is None:
        raise ValueError(
            f"{owner}: the list '{_title(names)}' has no column of labels"
            + (f' {column!r}' if column else '')
            + '. Expected lines such as path,label; name the column with labels=..., or set labels=False.'
        )
    raise _mismatch(best, files, root, names, owner)


def _match(reading: Reading, step: int, files: Sequence[str], root: str | None) -> Match:
    """Of every ``step``-th item."""
    reading = reading._replace(items=reading.items[::step], places=reading.places[::step])
    names, labels = [], []
    for item in reading.items:
        name, label = reading.pick(item)
        names.append(name)
        labels.append(label)
    return Match(reading, names, labels, *look_up(names, files, root, reading.levels))


def _mismatch(
    match: Match, files: Sequence[str], root: str | None, names: str | Sequence[str], owner: str
) -> Exception:
    """The error about names that no file has, five of them, or else about those of several files."""
    missing = np.flatnonzero(match.rows == -1)
    count, of = len(missing) or len(match.several), f"of the {len(match.names)} names in '{_title(names)}' are"
    told = missing[:5].tolist() or list(match.several)[:1]
    examples = ', '.join(f'{match.names[k].strip()!r} ({match.reading.place(k)})' for k in told)
    if not len(missing):
        first, second = (files[row] for row in match.several[told[0]][:2])
        return ValueError(
            f'{owner}: {count} {of} the names of several files, e.g. {examples}: {first!r} and {second!r}. '
            'Write the path below the root.'
        )
    some = list(itertools.islice(files, 20000))
    near = difflib.get_close_matches(match.names[told[0]].strip().replace('\\', '/'), some, n=1, cutoff=0.4)
    return FileNotFoundError(
        f'{owner}: {count} {of} not in the source, e.g. {examples}' + (f'; the nearest is {near[0]!r}' if near else '')
        + '. The data folder is incomplete, or the list belongs to another set'
        + (f" (files were looked for below '{root}')" if root else '') + f'. {FORMAT}'
    )  # fmt: skip
