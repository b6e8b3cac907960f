"""Labelled sets of files that torchvision can read: their lists from torchvision, their images and errors as here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets as published

from mmkernel.registry import DATASETS

from .folders import FileSource
from .sources import existing_folder, one_of


class PublishedSet(FileSource):
    """``root`` is the folder above the one that torchvision makes; nothing is ever downloaded.

    ``validation``: (N,) booleans, which images of split 'trainval' are the authors' validation set; None where the authors
    give none. FileNotFoundError naming the files that are expected.
    """

    reader: type
    folder: str  # below root
    archive: str  # where the files are published
    lengths: dict[str, int]
    parts: dict[str, tuple[str, ...]] = {}  # splits that are several of the reader's
    options: dict[str, Any] = {}
    validation: np.ndarray | None = None

    def __init__(self, root: str, split: str = 'train', mode: str = 'RGB', on_corrupt: str = 'raise') -> None:
        one_of(split, f'{type(self).__name__}: split', tuple(self.lengths))
        home = existing_folder(root, type(self).__name__, f'{self.folder}/ from {self.archive}')
        read = [self._read(home, part) for part in self.parts.get(split, (split,))]
        self.classes = list(read[0].classes)
        members = [_members(each) for each in read]
        if any(
            list(each.classes) != self.classes for each in read
        ):  # a split that lacks a class numbers the others anew
            self.classes = list(dict.fromkeys(name for each in read for name in each.classes))
            members = [
                (m[0], [self.classes.index(each.classes[k]) for k in m[1]])
                for m, each in zip(members, read, strict=True)
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

    @classmethod
    def expected_length(cls, split: str = 'train', **_: Any) -> int | None:
        return cls.lengths[split]


def _members(data: Any) -> tuple[list, list[int]]:
    """Paths and labels of one of torchvision's sets, without decoding an image."""
    if hasattr(data, '_samples'):
        return [path for path, _ in data._samples], [int(label) for _, label in data._samples]
    return (data._image_files if hasattr(data, '_image_files') else data._images), data._labels


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
