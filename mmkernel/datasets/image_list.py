"""Images by a list of their files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmkernel.hashes import hashes
from mmkernel.registry import DATASETS

from . import scanned
from .folders import EXTENSIONS, FileSource, ImageFolder
from .index_file import read_index
from .names import rows_labelled


@DATASETS.register_module()
class ImageList(FileSource):
    """The image files that a list names, in its order, each once.

    names: a text file with lines 'path', 'path label' or 'path,label', a table with a header, JSON, or the names themselves.
        A name is a path below ``root``, absolute, or the file name alone; see ``names.rows_named``.
    root: the folder with the images, in any depth; by default that of the list.
    labels: True, or the header of the column of labels; False: each label is -1. Text or whole numbers, '-1' for none.
    classes: the classes that there are, in order; by default those in the list, sorted. A number in the list is the name of a
        class, or its position among classes that have other names.
    extensions, mode, on_corrupt: as for ``ImageFolder``.
    FileNotFoundError for names that no file has (how many, and five of them); ValueError for a name of several files, an image
    with two labels or none, an unknown label, and a list without names.
    """

    def __init__(
        self,
        names: str | Sequence[str],
        root: str | None = None,
        labels: bool | str = False,
        classes: Sequence[str] | None = None,
        extensions: tuple[str, ...] = EXTENSIONS,
        mode: str = 'RGB',
        on_corrupt: str | int = 'raise',
    ) -> None:
        file = isinstance(names, (str, os.PathLike))
        if root is None and not file:
            raise ValueError('ImageList: names are given one by one: give root, the folder that they are below.')
        root = Path(names).expanduser().parent if root is None else root
        folder = ImageFolder(root, extensions=extensions, mode=mode)
        rows, numbers, self.classes = _listed(folder, names, labels, classes) if file else rows_labelled(
            folder, names, labels, classes, 'ImageList'
        )  # fmt: skip
        super().__init__(folder.root, folder.paths.take(rows), numbers, mode, on_corrupt)


def _listed(
    folder: ImageFolder, names: str, labels: bool | str, classes: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """``rows_labelled``, kept beside the index of the folder where there is one: for the same list, the same files."""
    given = (folder, names, labels, classes, 'ImageList')
    if folder.paths.file is None or not Path(names).expanduser().is_file():
        return rows_labelled(*given)
    digest = hashes([Path(names).expanduser()])['sha256']
    about = dict(
        layout=scanned.LAYOUT, list=digest, files=folder.paths.file[1], labels=labels, classes=classes and list(classes)
    )
    places = scanned.index_places(os.path.realpath(folder.root), about)

    def read(place: Path, crc32: int | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
        said, arrays, _ = read_index(place, crc32)
        rows, numbers, known = arrays.get('rows'), arrays.get('labels'), said.get('known')
        fits = {key: said.get(key) for key in about} == about and isinstance(known, list) and rows is not None
        if not fits or numbers is None or len(rows) != len(numbers) or not len(rows):
            raise ValueError('is that of another list')
        if not (
            0 <= rows.min() and rows.max() < len(folder) and -1 <= numbers.min() and numbers.max() < max(1, len(known))
        ):
            raise ValueError('has numbers of files or classes that are not there')
        return rows, numbers, known

    found: Any = scanned.stored(places, read)
    if found is None:
        found = rows_labelled(*given)
        scanned.keep(places, {**about, 'known': found[2]}, dict(rows=found[0], labels=found[1]), read)
    return found
