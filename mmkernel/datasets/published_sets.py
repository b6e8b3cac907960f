"""Labelled sets of files that torchvision can read, and Caltech-101 with the split of transfer benchmarks."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets as published

from mmkernel.checks import check_words
from mmkernel.registry import DATASETS

from .draws import draw_per_class, smallest_keys
from .folders import FileSource, class_folders
from .sources import existing_folder
from .torchvision_sets import labels_of
from .walk import walk


class PublishedSet(FileSource):
    """``root`` is the folder above the one that torchvision makes; nothing is ever downloaded.

    ``validation``: (N,) booleans, which images of split 'trainval' are the authors' validation set; None where the authors
    give none. FileNotFoundError naming the files that are expected.
    """

    reader: type
    folder: str  # below root
    archive: str  # where the files are published
    parts: dict[str, tuple[str, ...]] = {}  # splits that are several of the reader's
    options: dict[str, Any] = {}
    validation: np.ndarray | None = None

    def __init__(self, root: str, split: str = 'train', mode: str = 'RGB', on_corrupt: str = 'raise') -> None:
        check_words(type(self).__name__, split=(split, self.lengths))
        home = existing_folder(root, type(self).__name__, f'{self.folder}/ from {self.archive}')
        read = [self._read(home, part) for part in self.parts.get(split, (split,))]
        self.classes = list(dict.fromkeys(name for each in read for name in each.classes))
        number = {name: k for k, name in enumerate(self.classes)}  # a split that lacks a class numbers the others anew
        members = [
            (files, [number[each.classes[k]] for k in labels]) for each in read for files, labels in [_members(each)]
        ]
        paths = [os.path.relpath(path, home) for files, _ in members for path in files]
        if len(members) > 1:
            self.validation = np.repeat(np.arange(len(members)) == len(members) - 1, [len(m[0]) for m in members])
        super().__init__(home, paths, np.concatenate([labels for _, labels in members]), mode, on_corrupt)

    def _read(self, home: Path, split: str) -> Any:
        try:
            return self.reader(str(home), split=split, download=False, **self.options)
        except (RuntimeError, FileNotFoundError) as error:
            missing = getattr(error, 'filename', None)
            raise FileNotFoundError(
                f"{type(self).__name__}: '{home}' has no complete {self.folder}/"
                + (f" ('{missing}' is missing)" if missing else '')
                + f'. Unpack the files of {self.archive} there, or point `root` to the folder above {self.folder}/.'
            ) from error


def _members(data: Any) -> tuple[list, list[int]]:
    """Paths and labels of one of torchvision's sets, without decoding an image."""
    if hasattr(data, '_samples'):
        return [path for path, _ in data._samples], labels_of(data)
    return (data._image_files if hasattr(data, '_image_files') else data._images), labels_of(data)


@DATASETS.register_module()
class Food101(PublishedSet):
    """101 dishes; split 'train' (75 750) or 'test' (25 250). Bossard et al., ECCV 2014."""

    reader, folder = published.Food101, 'food-101'
    archive = 'data.vision.ee.ethz.ch/cvl/datasets_extra/food-101'
    lengths = dict(train=75750, test=25250)


@DATASETS.register_module()
class StanfordCars(PublishedSet):
    """196 models of cars; split 'train' (8 144) or 'test' (8 041). Krause et al., 3dRR 2013. Lists are .mat files (scipy)."""

    reader, folder = published.StanfordCars, 'stanford_cars'
    archive = 'ai.stanford.edu/~jkrause/cars/car_dataset.html'
    lengths = dict(train=8144, test=8041)


@DATASETS.register_module()
class FGVCAircraft(PublishedSet):
    """100 variants of aircraft; 'train' (3 334), 'val' (3 333), 'trainval', 'test' (3 333). Maji et al., arXiv 1306.5151."""

    reader, folder = published.FGVCAircraft, 'fgvc-aircraft-2013b'
    archive = 'www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft'
    lengths = dict(train=3334, val=3333, trainval=6667, test=3333)
    parts = dict(trainval=('train', 'val'))


@DATASETS.register_module()
class DTD(PublishedSet):
    """47 textures, the first of ten partitions: 1 880 each of 'train', 'val' and 'test'; 'trainval'. Cimpoi et al., CVPR 2014."""

    reader, folder = published.DTD, 'dtd'
    archive = 'www.robots.ox.ac.uk/~vgg/data/dtd'
    lengths = dict(train=1880, val=1880, trainval=3760, test=1880)
    parts = dict(trainval=('train', 'val'))


@DATASETS.register_module()
class OxfordPets(PublishedSet):
    """37 breeds of cats and dogs; split 'trainval' (3 680) or 'test' (3 669). Parkhi et al., CVPR 2012."""

    reader, folder = published.OxfordIIITPet, 'oxford-iiit-pet'
    archive = 'www.robots.ox.ac.uk/~vgg/data/pets'
    lengths = dict(trainval=3680, test=3669)
    options = dict(target_types='category')


@DATASETS.register_module()
class Flowers102(PublishedSet):
    """102 flowers; 'train' and 'val' (1 020 each), 'trainval', 'test' (6 149). Nilsback and Zisserman, ICVGIP 2008.

    The lists are .mat files (scipy), read by torchvision only if their checksums are the published ones.
    """

    reader, folder = published.Flowers102, 'flowers-102'
    archive = 'www.robots.ox.ac.uk/~vgg/data/flowers/102'
    lengths = dict(train=1020, val=1020, trainval=2040, test=6149)
    parts = dict(trainval=('train', 'val'))


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
        check_words('Caltech101', split=(split, ('train', 'test')))
        layout = 'caltech101/101_ObjectCategories/<class>/*.jpg from data.caltech.edu/records/20086'
        home = existing_folder(Path(root) / 'caltech101/101_ObjectCategories', 'Caltech101', layout)
        self.classes = class_folders(home, 'Caltech101', layout)
        files = [[os.path.join(name, path) for path in walk(home / name, ('.jpg',))] for name in self.classes]
        for name, found in zip(self.classes, files, strict=True):
            if len(found) <= per_class:
                raise ValueError(
                    f"Caltech101: {len(found)} images in '{home / name}'; taking {per_class} to train leaves none to test."
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
