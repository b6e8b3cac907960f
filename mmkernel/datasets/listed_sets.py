"""Labelled sets with lists of their own: SUN397, Birdsnap, PASCAL VOC."""

import csv
import os
import warnings
from pathlib import Path

import numpy as np

from mmkernel.checks import check_words
from mmkernel.registry import DATASETS

from .folders import FileSource
from .list_files import text_of
from .sources import existing_folder
from .walk import walk


@DATASETS.register_module()
class SUN397(FileSource):
    """397 scenes, the first of ten partitions: 19 850 images each of 'train' and 'test'. Xiao et al., CVPR 2010.

    Reads SUN397/<letter>/<class>/*.jpg below ``root`` and the lists Training_01.txt and Testing_01.txt of Partitions.zip, in
    SUN397/, SUN397/Partitions/ or Partitions/. Classes are those of the list, sorted. Not tried on the set itself.
    """

    lengths = dict(train=19850, test=19850)

    def __init__(self, root: str, split: str = 'train', mode: str = 'RGB', on_corrupt: str = 'raise') -> None:
        check_words('SUN397', split=(split, self.lengths))
        layout = 'SUN397/ from SUN397.tar.gz, Partitions/ from Partitions.zip (vision.princeton.edu/projects/2010/SUN)'
        home = existing_folder(root, 'SUN397', layout)
        images = existing_folder(home / 'SUN397', 'SUN397', layout)
        name = dict(train='Training_01.txt', test='Testing_01.txt')[split]
        places = [place / name for place in (images, images / 'Partitions', home / 'Partitions')]
        list_ = next((place for place in places if place.is_file()), None)
        if list_ is None:
            where = ', '.join(f"'{place.parent}'" for place in places)
            raise FileNotFoundError(f'SUN397: {name} is in none of {where}. Expected: {layout}.')
        paths = text_of(list_).split()  # '/a/abbey/sun_x.jpg'
        names, labels = np.unique(
            [os.path.dirname(path) for path in paths], return_inverse=True
        )  # of each split all 397
        self.classes = names.tolist()
        super().__init__(images, [path.lstrip('/') for path in paths], labels, mode, on_corrupt)


@DATASETS.register_module()
class Birdsnap(FileSource):
    """500 birds; split 'train' or 'test' (2 443 images when all are there). Berg et al., CVPR 2014.

    Reads images.txt (tab-separated, with a header that names the columns path and species_id), test_images.txt and
    download/images/ below ``root``/birdsnap, as the authors' script leaves them. Photographs that are no longer on the web are
    left out, with a warning that counts them: figures of different copies are then not comparable.
    Written from the README of version 1.1, not tried on the set itself.
    """

    def __init__(self, root: str, split: str = 'train', mode: str = 'RGB', on_corrupt: str = 'raise') -> None:
        check_words('Birdsnap', split=(split, ('train', 'test')))
        layout = 'birdsnap/{images.txt, test_images.txt, download/images/} from birdsnap.tgz and its get_birdsnap.py'
        home = existing_folder(Path(root) / 'birdsnap', 'Birdsnap', layout)
        for name in ('images.txt', 'test_images.txt'):
            if not (home / name).is_file():
                raise FileNotFoundError(f"Birdsnap: '{home / name}' is missing. Expected: {layout}.")
        rows = list(csv.DictReader(text_of(home / 'images.txt').splitlines(), delimiter='\t', quoting=csv.QUOTE_NONE))
        bad = [row for row in rows if None in row or None in row.values() or not {'path', 'species_id'} <= row.keys()]
        if bad or not rows:
            raise ValueError(
                f"Birdsnap: '{home / 'images.txt'}' has {len(rows)} rows, e.g. {bad[:1]}; expected tabs between as many columns "
                'in each, path and species_id among them.'
            )
        listed, test = (
            [(row['path'], row['species_id']) for row in rows],
            set(text_of(home / 'test_images.txt').split()),
        )
        wanted = [pair for pair in listed if (pair[0] in test) == (split == 'test')]
        there = set(walk(home / 'download/images'))
        kept = [(name, label) for name, label in wanted if os.path.normpath(name) in there]
        if not kept:
            raise FileNotFoundError(f"Birdsnap: none of {len(wanted)} images of '{split}' is there: {layout}.")
        if gone := len(wanted) - len(kept):
            warnings.warn(f'Birdsnap {split}: {gone} of {len(wanted)} images are missing.', stacklevel=2)
        self.classes = sorted({label for _, label in listed}, key=int)
        number = {label: k for k, label in enumerate(self.classes)}
        labels = np.array([number[label] for _, label in kept])
        super().__init__(home / 'download/images', [name for name, _ in kept], labels, mode, on_corrupt)


@DATASETS.register_module()
class VOC2007(FileSource):
    """``targets`` (N, C) int8: 1 the class is there, 0 it is not, -1 only as an object marked difficult.

    Everingham et al., The PASCAL visual object classes (VOC) challenge, IJCV 2010: 20 classes, 5 011 photographs of split
    'trainval' ('train' and 'val' together), 4 952 of 'test'. A photograph has no single class: each ``label`` is -1.

    root: the folder VOC2007 with JPEGImages and ImageSets/Main, or one above it (VOCdevkit/VOC2007).
    ``validation``: (N,) booleans, which images of 'trainval' are of 'val'; None for other splits or without that list.
    classes: those wanted, in this order; None: all, sorted. They are read from ``ImageSets/Main/<class>_<split>.txt``.
    """

    lengths = dict(trainval=5011, train=2501, val=2510, test=4952)
    validation: np.ndarray | None = None

    def __init__(
        self,
        root: str,
        split: str = 'trainval',
        classes: list[str] | None = None,
        mode: str = 'RGB',
        on_corrupt: str = 'raise',
    ) -> None:
        check_words(type(self).__name__, split=(split, self.lengths))
        folder = existing_folder(root, 'VOC2007', 'VOCdevkit/VOC2007/ as unpacked from the published archives')
        inner = [folder / part for part in ('VOCdevkit/VOC2007', 'VOC2007', '.')]
        folder = next((path.resolve() for path in inner if (path / 'ImageSets/Main').is_dir()), None)
        if folder is None:
            raise FileNotFoundError(f"VOC2007: no ImageSets/Main in '{root}' or in VOCdevkit/VOC2007 below it.")
        lists = folder / 'ImageSets/Main'
        ids = _ids(lists / f'{split}.txt')
        if split == 'trainval' and (lists / 'val.txt').is_file():
            self.validation = np.isin(ids, _ids(lists / 'val.txt'))
        # removesuffix, because a class may be called train: train_train.txt, train_trainval.txt
        found = sorted(p.name.removesuffix(f'_{split}.txt') for p in lists.glob(f'*_{split}.txt'))
        unknown = sorted(set(classes or []) - set(found))
        if unknown or not found:
            known = ', '.join(found) or 'none'
            raise ValueError(
                f"VOC2007: '{lists}' has lists <class>_{split}.txt of the classes {known}; unknown: {unknown}."
            )
        self.classes = list(classes or found)
        self.targets = np.stack([_listed(lists / f'{name}_{split}.txt', ids) for name in self.classes], 1)
        super().__init__(folder / 'JPEGImages', [f'{i}.jpg' for i in ids], np.full(len(ids), -1), mode, on_corrupt)


def _ids(path: Path) -> list[str]:
    if not path.is_file() or not text_of(path).strip():
        there = ', '.join(sorted(p.name for p in path.parent.glob('*.txt') if '_' not in p.name)) or 'no such list'
        raise FileNotFoundError(f"VOC2007: '{path}' is missing or empty; the folder has {there}.")
    return [line.split()[0] for line in text_of(path).splitlines() if line.strip()]


def _listed(path: Path, ids: list[str]) -> np.ndarray:
    """(N,) targets from lines '<id> <1: there, -1: not there, 0: difficult only>'."""
    meaning = {'1': 1, '-1': 0, '0': -1}
    try:
        given = dict(line.split() for line in text_of(path).splitlines() if line.strip())
        return np.array([meaning[given[image]] for image in ids], np.int8)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"'{path}': expected '<image> 1', '-1' or '0' for each of {len(ids)} images; {error}"
        ) from error
