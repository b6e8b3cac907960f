"""The 1 797 hand-written digits that come with scikit-learn: real data without a download."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mmkernel.registry import DATASETS

from .pixels import resize
from .sources import Source, one_of


@DATASETS.register_module()
class Digits(Source):
    """8x8 scans of digits, resized (bicubic) to size x size, one grey channel; Alpaydin and Kaynak, 1998.

    One fixed split, stratified by class: 1 437 'train', 360 'test'. The writers are not known to be disjoint.
    """

    def __init__(self, split: str = 'train', size: int = 16) -> None:
        super().__init__()
        one_of(split, 'split', ('train', 'test'))
        scans = load_digits()
        train, test = train_test_split(
            np.arange(len(scans.target)), test_size=360, stratify=scans.target, random_state=0
        )
        self.split, self.members = split, np.sort(train if split == 'train' else test)
        grey = np.rint(scans.images[self.members] * (255 / 16)).astype(np.uint8)[..., None]  # 17 levels, 0..16
        self.images = np.stack([resize(image, size, size, 'bicubic') for image in grey])
        self.labels = scans.target[self.members].astype(np.int64)
        self.classes = [str(name) for name in scans.target_names]

    def name(self, i: int) -> str:
        return f'digit {self.members[i]} of scikit-learn ({self.split} {i})'

    def read(self, i: int) -> np.ndarray:
        return self.images[i]

    @classmethod
    def expected_length(cls, split: str = 'train', **_: Any) -> int:
        return {'train': 1437, 'test': 360}[split]
