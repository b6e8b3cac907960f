"""The records of one tar file: where each image lies, its name and the text of its label."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .folders import EXTENSIONS
from .strings import Strings
from .tar_members import members, reader

IMAGES = tuple(ending[1:] for ending in EXTENSIONS)
_RECORD = re.compile(r'((?:.*/)?[^./][^./]*)\.([^/]*)', re.S)  # key, ending; hidden files are none
_LARGEST = 1 << 24  # bytes of a file with a label
_META = re.compile(r'(?:.*/)?__[^/]*__(?:/.*)?', re.S)  # webdataset leaves these out


class File(NamedTuple):
    """A member of a shard that belongs to a record."""

    key: str
    ending: str
    offset: int
    size: int
    data: bytes  # of files that may hold a label

    @property
    def name(self) -> str:
        return f'{self.key}.{self.ending}'


class Records(NamedTuple):
    """N images of a shard, in its order."""

    names: Strings
    offsets: np.ndarray  # (N,) int64
    sizes: np.ndarray  # (N,) int64
    codes: np.ndarray  # (N,) positions in ``texts``, -1: no label
    texts: list[str]
    bare: list[str]  # keys of records without an image
    endings: Counter  # of all files
    entries: Counter  # of the .json files, where labels are looked for in them


def shard_records(path: str, image: str | None, label: str) -> Records:
    """The records of the shard ``path``; ``image`` and ``label`` as in ``TarShards``.

    ValueError that names the record for two files of one name, two images of one record, and a label that cannot be read.
    """
    wanted = IMAGES if image is None else (image.lower().lstrip('.'),)
    holder = 'json' if label.startswith('json:') else label.lower().lstrip('.')
    images: dict[str, File] = {}
    labels: dict[str, str | None] = {}
    keys, seen, endings, entries = {}, set(), Counter(), Counter()
    for file in _files(path, holder):
        keys[file.key] = None
        endings[file.ending] += 1
        if file.name in seen:
            raise ValueError(f"'{path}' holds '{file.name}' twice, but a key names one record. Write the shard again.")
        seen.add(file.name)
        if file.ending.lower() in wanted:
            if other := images.get(file.key):
                raise ValueError(
                    f"'{path}': the record '{file.key}' has two images, '{other.ending}' and '{file.ending}'. Choose one: "
                    f'image={other.ending!r}.'
                )
            images[file.key] = file
        elif file.ending.lower() == holder:
            labels[file.key] = _label(file, path, label, entries)
    if label == 'folder':
        labels = {key: _first_folder(key, path) for key in images}
    found = [labels.get(key) for key in images]
    place = {text: k for k, text in enumerate(dict.fromkeys(text for text in found if text is not None))}
    return Records(
        Strings.of(file.name for file in images.values()),
        np.array([file.offset for file in images.values()], np.int64),
        np.array([file.size for file in images.values()], np.int64),
        np.array([-1 if text is None else place[text] for text in found], np.int64),
        list(place),
        [key for key in keys if key not in images],
        endings,
        entries,
    )


def _files(path: str, holder: str) -> Iterator[File]:
    """The files of a shard that belong to records, those that end in ``holder`` with their bytes."""
    number = os.open(path, os.O_RDONLY)
    try:
        read = reader(number)
        for name, offset, size in members(path, read, os.fstat(number).st_size):
            found = _RECORD.fullmatch(name.removeprefix('./'))
            if found and not _META.fullmatch(name):
                key, ending = found.groups()
                label = ending.lower() == holder
                if label and size > _LARGEST:
                    raise ValueError(
                        f"'{name}' in '{path}' has {size} bytes, too many for a label. Give the ending of labels."
                    )
                yield File(key, ending, offset, size, read(offset, size) if label else b'')
    finally:
        os.close(number)


def _first_folder(key: str, path: str) -> str | None:
    first, *more = key.split('/')
    if more and (not first or '..' in (first, *more)):
        raise ValueError(
            f"'{path}': the path '{key}' begins with no class folder. Write the shard with paths class/image."
        )
    return first if more else None


def _label(file: File, path: str, label: str, entries: Counter) -> str | None:
    """The text of a file, or of an entry of its JSON object, whose keys are counted; None where it is empty or missing."""
    try:
        text = file.data.decode('utf-8-sig').strip()
        if not label.startswith('json:'):
            if '\n' in text:
                raise ValueError('it has several lines')
            return text or None
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError(f'it is not an object with keys, but {text[:40]}')
        entries.update(record.keys())
        return _word(record.get(label[5:]))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"'{file.name}' in '{path}' holds no label: {error}. Expected a number or the name of one class; classes of "
            'which an image has several are read by a source of your own (`targets`).'
        ) from error


def _word(value: Any) -> str | None:
    if value is None or value == '':
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f'it is {json.dumps(value)[:60]}')
    return str(value).strip()
