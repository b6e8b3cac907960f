"""PASCAL VOC as a set of photographs with several classes each."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np

from mmkernel.registry import DATASETS

from .folders import FileSource
from .name_lists import text_of
from .sources import existing_folder, one_of


@DATASETS.register_module()
class VOC2007(FileSource):
    """``targets`` (N, C) int8: 1 the class is there, 0 it is not, -1 only as an object marked difficult.

    Everingham et al., The PASCAL visual object classes (VOC) challenge, IJCV 2010: 20 classes, 5 011 photographs of split
    'trainval' ('train' and 'val' together), 4 952 of 'test'. A photograph has no single class: each ``label`` is -1.

    root: the folder VOC2007 with JPEGImages, ImageSets/Main and Annotations, or one above it (VOCdevkit/VOC2007).
    ``validation``: (N,) booleans, which images of 'trainval' are of 'val'; None for other splits or without that list.
    classes: those wanted, in this order; None: all, sorted. They are read from the lists ``ImageSets/Main/<class>_<split>.txt``
    and, where there are none, from ``Annotations/<id>.xml``. FileNotFoundError that says what is missing.
    """

    year = '2007'
    validation: np.ndarray | None = None

    def __init__(
        self,
        root: str,
        split: str = 'trainval',
        classes: list[str] | None = None,
        mode: str = 'RGB',
        on_corrupt: str = 'raise',
    ) -> None:
        one_of(split, 'split', ('train', 'val', 'trainval', 'test'))
        folder = existing_folder(root, 'VOC2007', f'VOCdevkit/VOC{self.year}/ as unpacked from the published archives')
        inner = [folder / part for part in (f'VOCdevkit/VOC{self.year}', f'VOC{self.year}', '.')]
        folder = next((path.resolve() for path in inner if (path / 'ImageSets/Main').is_dir()), None)
        if folder is None:
            raise FileNotFoundError(f"VOC2007: no ImageSets/Main in '{root}' or in VOCdevkit/VOC{self.year} below it.")
        ids = _ids(folder / 'ImageSets/Main' / f'{split}.txt')
        lists = folder / 'ImageSets/Main'
        if split == 'trainval' and (lists / 'val.txt').is_file():
            self.validation = np.isin(ids, _ids(lists / 'val.txt'))
        # removesuffix, because a class may be called train: train_train.txt, train_trainval.txt
        found = sorted(p.name.removesuffix(f'_{split}.txt') for p in lists.glob(f'*_{split}.txt'))
        if found:
            self.classes = _known(classes, found, folder)
            self.targets = np.stack([_listed(lists / f'{name}_{split}.txt', ids) for name in self.classes], 1)
        else:
            objects = [_objects(folder / 'Annotations' / f'{image}.xml') for image in ids]
            self.classes = _known(classes, sorted({name for each in objects for name in each}), folder)
            self.targets = np.array([[each.get(name, 0) for name in self.classes] for each in objects], np.int8)
        super().__init__(folder / 'JPEGImages', [f'{i}.jpg' for i in ids], np.full(len(ids), -1), mode, on_corrupt)

    @classmethod
    def expected_length(cls, split: str = 'trainval', **_: Any) -> int:
        return dict(train=2501, val=2510, trainval=5011, test=4952)[split]


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


def _objects(path: Path) -> dict[str, int]:
    """{class: 1, or -1 if all its objects are difficult}."""
    if not path.is_file():
        raise FileNotFoundError(f"VOC2007: neither ImageSets/Main/<class>_<split>.txt nor '{path}'. Unpack it again.")
    found: dict[str, int] = {}
    for item in ElementTree.parse(path).iter('object'):
        name = item.findtext('name', '').strip()
        found[name] = max(found.get(name, -1), -1 if item.findtext('difficult', '0').strip() == '1' else 1)
    return found


def _known(wanted: list[str] | None, found: list[str], folder: Path) -> list[str]:
    unknown = sorted(set(wanted or []) - set(found))
    if unknown or not found:
        raise ValueError(f"VOC2007: '{folder}' has the classes {', '.join(found) or 'none'}; unknown: {unknown}.")
    return list(wanted or found)
