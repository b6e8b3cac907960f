"""Labelled sets of up to millions of photographs that encoders are judged on: iNaturalist and Places205, from their own lists."""

import json
import os
import re
from pathlib import Path

import numpy as np

from mmkernel.checks import check_words
from mmkernel.registry import DATASETS

from .folders import FileSource
from .sources import existing_folder


@DATASETS.register_module()
class INaturalist(FileSource):
    """Species; year 2017 (5 089), 2018 (8 142), 2019 (1 010) or 2021 (10 000); split 'train', 'val', of 2021 also 'train_mini'.

    Van Horn et al., The iNaturalist species classification and detection dataset, CVPR 2018, and its later competitions.
    Reads the lists train2018.json and val2018.json (of 2021: train.json, train_mini.json, val.json) in ``root`` and the images
    that they name, below it: train_val2018/<kingdom>/<number>/*.jpg, as the archives are unpacked. Classes are the names in
    the list in the order of their numbers, or the numbers where a name comes twice. Not tried on the set itself.
    """

    lengths = dict(train=437513, val=24426)
    _published = {
        2017: dict(train=579184, val=95986),
        2018: dict(train=437513, val=24426),
        2019: dict(train=265213, val=3030),
        2021: dict(train=2686843, train_mini=500000, val=100000),
    }

    def __init__(
        self, root: str, split: str = 'train', year: int = 2018, mode: str = 'RGB', on_corrupt: str | int = 'raise'
    ) -> None:
        check_words('INaturalist', year=(year, self._published))
        check_words('INaturalist', split=(split, self._published[year]))
        file = f'{split}.json' if year == 2021 else f'{split}{year}.json'
        layout = f'{file} and the images that it names (github.com/visipedia/inat_comp)'
        home = existing_folder(root, 'INaturalist', layout)
        if not (home / file).is_file():
            raise FileNotFoundError(f"INaturalist: '{home / file}' is missing. Expected in '{home}': {layout}.")
        try:
            listed = json.loads((home / file).read_bytes())
            paths = {image['id']: image['file_name'] for image in listed['images']}
            names = {each['id']: str(each['name']) for each in listed['categories']}
            place = {number: k for k, number in enumerate(sorted(names))}
            label = {each['image_id']: place[each['category_id']] for each in listed['annotations']}
            labels = [label[image] for image in paths]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"INaturalist: '{home / file}' is not a list of images, annotations, categories ({type(error).__name__}: {error}). "
                'Fetch it again.'
            ) from error
        self.classes = [names[number] for number in sorted(names)]
        if len(set(self.classes)) < len(self.classes):
            self.classes = [str(number) for number in sorted(names)]
        _check_first(home, next(iter(paths.values()), None), 'INaturalist', layout)
        super().__init__(home, list(paths.values()), np.array(labels), mode, on_corrupt)

    @classmethod
    def expected_length(cls, split: str = 'train', year: int = 2018, **_: object) -> int | None:
        return cls._published.get(year, {}).get(split)


@DATASETS.register_module()
class Places205(FileSource):
    """205 scenes; split 'train' (2 448 873) or 'val' (20 500).

    Zhou et al., Learning deep features for scene recognition using Places database, NIPS 2014.
    Reads trainvalsplit_places205/train_places205.csv (lines '<path> <number>') below ``root``, and the images below
    data/vision/torralba/deeplearning/images256, as the archives are unpacked; or both directly in ``root``. A class is named by
    its folder, e.g. 'a/abbey'. Not tried on the set itself.
    """

    lengths = dict(train=2448873, val=20500)

    def __init__(self, root: str, split: str = 'train', mode: str = 'RGB', on_corrupt: str | int = 'raise') -> None:
        check_words('Places205', split=(split, self.lengths))
        layout = (
            f'trainvalsplit_places205/{split}_places205.csv and data/vision/torralba/deeplearning/images256/ from '
            'trainvalsplit_places205.tar.gz and imagesPlaces205_resize.tar.gz'
        )
        home = existing_folder(root, 'Places205', layout)
        places = [home / part / f'{split}_places205.csv' for part in ('trainvalsplit_places205', '.')]
        list_ = next((place for place in places if place.is_file()), None)
        if list_ is None:
            raise FileNotFoundError(f"Places205: no {split}_places205.csv in '{home}'. Expected there: {layout}.")
        lines = list_.read_text('utf-8-sig').splitlines()
        rows = [re.split(r'[ ,\t]+(?=\d+$)', line.strip()) for line in lines if line.strip()]
        if bad := [k for k, row in enumerate(rows, 1) if len(row) != 2]:
            given = ' '.join(rows[bad[0] - 1])
            raise ValueError(f"Places205: line {bad[0]} of '{list_}' is {given!r}; expected '<path> <number>'.")
        below = [home / part for part in ('data/vision/torralba/deeplearning/images256', 'images256')]
        images = next((folder for folder in below if folder.is_dir()), home)
        labels = np.array([int(number) for _, number in rows])
        folders: dict[int, set[str]] = {}
        for path, number in rows:
            folders.setdefault(int(number), set()).add(os.path.dirname(path))
        named = sorted(folders) == list(range(len(folders))) and all(len(each) == 1 for each in folders.values())
        self.classes = [folders[k].pop() for k in range(len(folders))] if named else []
        _check_first(images, rows[0][0] if rows else None, 'Places205', layout)
        super().__init__(images, [path for path, _ in rows], labels, mode, on_corrupt)


def _check_first(folder: Path, path: str | None, owner: str, layout: str) -> None:
    """FileNotFoundError unless the first image is there: looking for millions of files would take minutes."""
    if path is None or not (folder / path).is_file():
        what = 'the list is empty' if path is None else f"the first image of the list, '{folder / path}', is missing"
        raise FileNotFoundError(f'{owner}: {what}. Expected: {layout}.')
