"""Images by a list of their files."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmkernel.hashes import hashes
from mmkernel.registry import DATASETS

from . import scanned
from .coded_labels import class_names
from .folders import EXTENSIONS, FileSource, ImageFolder
from .kept_arrays import Arrays, kept
from .names import rows_labelled
from .strings import Strings


@DATASETS.register_module()
class ImageList(FileSource):
    """The image files that a list names, in its order, each once.

    names: a text file with lines 'path', 'path label' or 'path,label', a table with a header, JSON, or the names themselves.
        A name is a path below ``root``, absolute, or the file name alone; see ``names.rows_named``.
    root: the folder with the images, in any depth; by default that of the list.
    labels: True, or the header of the column of labels; False: each label is -1. Text or whole numbers, '-1' for none.
    classes: the classes that there are, in order, or a text file with one per line; by default those in the list,
        sorted. A number in the list is the name of a class, or its position among classes that have other names.
    extensions, mode, on_corrupt, upright, scale: as for ``ImageFolder``.
    FileNotFoundError for names that no file has (how many, and five of them); ValueError for a name of several files, an image
    with two labels or none, an unknown label, and a list without names.
    """

    def __init__(
        self,
        names: str | Sequence[str],
        root: str | None = None,
        labels: bool | str = False,
        classes: Sequence[str] | str | None = None,
        extensions: tuple[str, ...] = EXTENSIONS,
        mode: str = 'RGB',
        on_corrupt: str | int = 'raise',
        upright: bool = True,
        scale: float | tuple[float, float] | None = None,
    ) -> None:
        self.upright, self.scale = upright, scale
        file = isinstance(names, (str, os.PathLike))
        if root is None and not file:
            raise ValueError('ImageList: names are given one by one: give root, the folder that they are below.')
        if file and not Path(names).expanduser().is_file():  # before millions of files are listed
            raise FileNotFoundError(f"ImageList: there is no list '{names}' (working directory '{Path.cwd()}').")
        classes = None if classes is None else class_names(classes, 'ImageList')
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
    crc32, path = getattr(folder.paths.arrays, 'crc32', None), Path(names).expanduser()
    if crc32 is None or not path.is_file():
        return rows_labelled(*given)
    about = dict(
        layout=scanned.LAYOUT,
        list=hashes([path])['sha256'],
        files=crc32,
        labels=labels,
        classes=classes and list(classes),
    )

    def make() -> Arrays:
        rows, numbers, known = rows_labelled(*given)
        texts = Strings.of(known)
        return dict(rows=rows, labels=numbers, classes=texts.data, class_ends=texts.offsets)

    def fits(arrays: Arrays) -> bool:
        rows, numbers, count = arrays['rows'], arrays['labels'], len(arrays['class_ends']) - 1
        Strings(arrays['classes'], arrays['class_ends']).check(count)
        if not rows.dtype == numbers.dtype == np.int64 or not len(rows) == len(numbers) > 0:
            raise ValueError('it lacks what it should say')
        if not (0 <= rows.min() <= rows.max() < len(folder) and -1 <= numbers.min() <= numbers.max() < max(1, count)):
            raise ValueError('numbers of files or classes lead out of them')
        return True

    found = kept(scanned.index_places(os.path.realpath(folder.root), about), about, make, fits)
    return found['rows'], found['labels'], list(Strings(found['classes'], found['class_ends']))
