"""Labelled sets in their published folders that torchvision does not read, or not with the splits of transfer benchmarks."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from mmkernel.registry import DATASETS

from .draws import draw_per_class, smallest_keys
from .folders import FileSource
from .name_lists import text_of
from .sources import existing_folder, one_of
from .walk import walk


@DATASETS.register_module()
class SUN397(FileSource):
    """397 scenes, the first of ten partitions: 19 850 images each of 'train' and 'test'. Xiao et al., CVPR 2010.

    Reads SUN397/<letter>/<class>/*.jpg below ``root`` and the lists ClassName.txt, Training_01.txt, Testing_01.txt of
    Partitions.zip, in SUN397/, SUN397/Partitions/ or Partitions/. Not tried on the set itself.
    """

    lists = dict(train='Training_01.txt', test='Testing_01.txt')

    def __init__(self, root: str, split: str = 'train', mode: str = 'RGB', on_corrupt: str = 'raise') -> None:
        one_of(split, 'SUN397: split', tuple(self.lists))
        layout = (
            'SUN397/ from SUN397.tar.gz and Partitions/ from Partitions.zip (vision.princeton.edu/projects/2010/SUN)'
        )
        home = existing_folder(root, 'SUN397', layout)
        images = existing_folder(home / 'SUN397', 'SUN397', layout)
        places = [images, images / 'Partitions', home / 'Partitions']
        lists = next((p for p in places if (p / self.lists[split]).is_file()), None)
        if lists is None:
            where = ', '.join(f"'{place}'" for place in places)
            raise FileNotFoundError(f'SUN397: {self.lists[split]} stands in none of {where}. Expected: {layout}.')
        paths = text_of(lists / self.lists[split]).split()  # '/a/abbey/sun_x.jpg'
        names = next((p for p in (lists / 'ClassName.txt', images / 'ClassName.txt') if p.is_file()), None)
        self.classes = text_of(names).split() if names else sorted({os.path.dirname(path) for path in paths})
        number = {name: k for k, name in enumerate(self.classes)}
        unknown = [path for path in paths if os.path.dirname(path) not in number]
        if unknown:
            raise ValueError(
                f"SUN397: '{lists / self.lists[split]}' lists {len(unknown)} images of classes that '{names}' does not, "
                f"e.g. '{unknown[0]}'. Take both from Partitions.zip."
            )
        labels = [number[os.path.dirname(path)] for path in paths]
        super().__init__(images, [path.lstrip('/') for path in paths], np.array(labels), mode, on_corrupt)

    @classmethod
    def expected_length(cls, **_: Any) -> int:
        return 19850


@DATASETS.register_module()
class Birdsnap(FileSource):
    """500 birds; split 'train' or 'test' (2 443 images when all are there). Berg et al., CVPR 2014.

    Reads images.txt (tab-separated, with a header that names the columns path and species_id), test_images.txt and
    download/images/ below ``root``/birdsnap, as the authors' script leaves them. Photographs that are gone from the web are
    left out, with a warning that counts them: figures of different copies are then not comparable.
    Written from the README of version 1.1, not tried on the set itself.
    """

    def __init__(self, root: str, split: str = 'train', mode: str = 'RGB', on_corrupt: str = 'raise') -> None:
        one_of(split, 'Birdsnap: split', ('train', 'test'))
        layout = 'birdsnap/{images.txt, test_images.txt, download/images/} from birdsnap.tgz and its get_birdsnap.py'
        home = existing_folder(Path(root) / 'birdsnap', 'Birdsnap', layout)
        for name in ('images.txt', 'test_images.txt'):
            if not (home / name).is_file():
                raise FileNotFoundError(f"Birdsnap: '{home / name}' is missing. Expected: {layout}.")
        header, *lines = text_of(home / 'images.txt').splitlines()
        columns = header.split('\t')
        rows = [line.split('\t') for line in lines if line.strip()]
        bad = next((k for k, row in enumerate(rows, 2) if len(row) != len(columns)), None)
        if bad or not {'path', 'species_id'} <= set(columns):
            raise ValueError(
                f"Birdsnap: '{home / 'images.txt'}' has the columns {columns}, {len(rows)} rows"
                + (f', and another number of columns in row {bad}' if bad else '')
                + '; expected tabs between them, path and species_id among them.'
            )
        path, species = columns.index('path'), columns.index('species_id')
        listed = [(row[path], row[species]) for row in rows]
        test = set(text_of(home / 'test_images.txt').split())
        wanted = [(name, label) for name, label in listed if (name in test) == (split == 'test')]
        there = set(walk(home / 'download/images'))
        kept = [(name, label) for name, label in wanted if os.path.normpath(name) in there]
        if not kept:
            raise FileNotFoundError(
                f"Birdsnap: none of {len(wanted)} images of '{split}' is there. Expected: {layout}."
            )
        if len(kept) < len(wanted):
            warnings.warn(
                f'Birdsnap {split}: {len(wanted) - len(kept)} of {len(wanted)} images are not there.', stacklevel=2
            )
        self.classes = sorted({label for _, label in listed}, key=int)
        number = {label: k for k, label in enumerate(self.classes)}
        labels = np.array([number[label] for _, label in kept])
        super().__init__(home / 'download/images', [name for name, _ in kept], labels, mode, on_corrupt)


@DATASETS.register_module()
class Caltech101(FileSource):
    """102 classes with the background: ``per_class`` = 30 random images each to train (3 060), all others (6 085) to test.

    Fei-Fei et al., CVPR workshop 2004. The authors give no split: it is a function of ``seed`` and the file names.
    Reads caltech101/101_ObjectCategories/<class>/ below ``root``.
    """

    def __init__(
        self,
        root: str,
        split: str = 'train',
        per_class: int = 30,
        seed: int = 0,
        mode: str = 'RGB',
        on_corrupt: str = 'raise',
    ) -> None:
        one_of(split, 'Caltech101: split', ('train', 'test'))
        layout = 'caltech101/101_ObjectCategories/<class>/*.jpg from data.caltech.edu/records/20086'
        home = existing_folder(Path(root) / 'caltech101/101_ObjectCategories', 'Caltech101', layout)
        self.classes = sorted(entry.name for entry in home.iterdir() if entry.is_dir() and entry.name[0] != '.')
        if not self.classes:
            raise FileNotFoundError(f"Caltech101: '{home}' has no class folders. Expected: {layout}.")
        files = [[os.path.join(name, path) for path in walk(home / name, ('.jpg',))] for name in self.classes]
        for name, found in zip(self.classes, files, strict=True):
            if len(found) <= per_class:
                raise ValueError(
                    f"Caltech101: {len(found)} images in '{home / name}'; {per_class} to train leave none."
                )
        labels, paths = np.repeat(np.arange(len(files)), list(map(len, files))), sum(files, [])
        drawn = draw_per_class(
            labels,
            lambda label, n: per_class,
            lambda label, members, k: smallest_keys(np.random.default_rng((seed, label)), members, k),
        )
        rows = np.sort(drawn) if split == 'train' else np.setdiff1d(np.arange(len(labels)), drawn)
        super().__init__(home, [paths[i] for i in rows], labels[rows], mode, on_corrupt)

    @classmethod
    def expected_length(cls, split: str = 'train', per_class: int = 30, **_: Any) -> int:
        return 102 * per_class if split == 'train' else 9145 - 102 * per_class
