"""Sets of small images: STL-10, CIFAR-10 and CIFAR-100 in their published files, and scikit-learn's digits."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torchvision.datasets as published
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mmkernel.checks import check_words
from mmkernel.registry import DATASETS

from .crops import resize
from .list_files import text_of
from .sources import Source, existing_folder


def _records(path: Path, size: int) -> np.ndarray:
    """(N, size) bytes of a file, mapped, not read."""
    if not path.is_file() or path.stat().st_size == 0 or path.stat().st_size % size:
        found = f'{path.stat().st_size} bytes' if path.is_file() else 'no such file'
        raise FileNotFoundError(
            f"'{path}': expected a whole number of {size}-byte records, found {found}. Unpack it again."
        )
    return np.memmap(path, np.uint8, mode='r').reshape(-1, size)


def _words(path: Path) -> list[str]:
    return text_of(path).split() if path.is_file() else []


@DATASETS.register_module()
class STL10(Source):
    """96x96 RGB; split 'unlabeled' (100 000, label -1), 'train' (5 000) or 'test' (8 000). Coates et al., AISTATS 2011.

    root: the folder stl10_binary of the published archive, or the one that contains it. The files are mapped, not read.
    """

    lengths = dict(unlabeled=100000, train=5000, test=8000)

    def __init__(self, root: str, split: str = 'unlabeled', on_corrupt: str = 'raise') -> None:
        super().__init__(on_corrupt)
        check_words(type(self).__name__, split=(split, self.lengths))
        folder = existing_folder(root, 'STL10', f'stl10_binary/{split}_X.bin from stl10_binary.tar.gz')
        folder = folder / 'stl10_binary' if (folder / 'stl10_binary').is_dir() else folder
        self.path = folder / f'{split}_X.bin'
        self.classes = _words(folder / 'class_names.txt')
        self.labels = np.full(len(self.arrays), -1)
        if split != 'unlabeled':
            self.labels = _records(folder / f'{split}_y.bin', 1)[:, 0].astype(np.int64) - 1  # published as 1..10
            if len(self.labels) != len(self.arrays):
                raise ValueError(f"'{self.path}' has {len(self.arrays)} images but {len(self.labels)} labels")

    def _open(self) -> np.ndarray:
        return _records(self.path, 3 * 96 * 96)

    def image_files(self) -> list[str]:
        return [str(self.path)]

    def name(self, i: int) -> str:
        return f'image {i} of {self.path}'

    def read(self, i: int) -> np.ndarray:
        plane_column_row = self.arrays[i].reshape(3, 96, 96)  # columns first, as MATLAB stores
        return np.ascontiguousarray(plane_column_row.transpose(2, 1, 0))


class _CIFAR(Source):
    """32x32 RGB; split 'train' (50 000) or 'test' (10 000). Krizhevsky, 2009.

    root holds either the Python version, read by torchvision, which unpickles a file only if its checksum is the
    published one, or the binary version, read as plain bytes.
    """

    python_version: type
    binary_folder: str
    binary_files: dict[str, list[str]]
    label_bytes: int  # the last of them is the label that we use
    class_file: str
    lengths = dict(train=50000, test=10000)

    def __init__(self, root: str, split: str = 'train', on_corrupt: str = 'raise') -> None:
        super().__init__(on_corrupt)
        check_words(type(self).__name__, split=(split, self.lengths))
        layout = f'{self.python_version.base_folder}/ or {self.binary_folder}/ as unpacked from the published archive'
        self.root, self.split = existing_folder(root, type(self).__name__, layout), split
        if not any((self.root / name).is_dir() for name in (self.binary_folder, self.python_version.base_folder)):
            raise FileNotFoundError(
                f"{type(self).__name__}: '{self.root}' has neither {layout}. Unpack {self.python_version.filename} "
                f'(from {self.python_version.url}) there.'
            )
        _, self.labels, self.classes = self.arrays

    def _open(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Images (N, 32, 32, 3), labels, classes."""
        folder = self.root / self.binary_folder
        if not folder.is_dir():
            return self._open_python_version()
        k, files = self.label_bytes, self.binary_files[self.split]
        records = np.concatenate([_records(folder / name, k + 3072) for name in files])
        images = np.ascontiguousarray(records[:, k:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return images, records[:, k - 1].astype(np.int64), _words(folder / self.class_file)

    def _open_python_version(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        try:
            data = self.python_version(str(self.root), train=self.split == 'train', download=False)
        except RuntimeError as error:
            folder = self.root / self.python_version.base_folder
            raise FileNotFoundError(
                f"'{folder}': a file is missing or its checksum is not the published one. "
                f'Unpack {self.python_version.filename} again (from {self.python_version.url}).'
            ) from error
        return data.data, np.asarray(data.targets, np.int64), list(data.classes)

    def image_files(self) -> list[str]:
        folder = self.root / self.binary_folder
        if folder.is_dir():
            return [str(folder / name) for name in self.binary_files[self.split]]
        version = self.python_version
        listed = version.train_list if self.split == 'train' else version.test_list
        return [str(self.root / version.base_folder / name) for name, _ in listed]

    def name(self, i: int) -> str:
        return f'image {i} of {type(self).__name__} {self.split} in {self.root}'

    def read(self, i: int) -> np.ndarray:
        return self.arrays[0][i]


@DATASETS.register_module()
class CIFAR10(_CIFAR):
    """10 classes, 32x32 RGB; split 'train' (50 000) or 'test' (10 000). Krizhevsky, 2009. ``root``: Python or binary version."""

    python_version = published.CIFAR10
    binary_folder = 'cifar-10-batches-bin'
    binary_files = dict(train=[f'data_batch_{k}.bin' for k in range(1, 6)], test=['test_batch.bin'])
    label_bytes, class_file = 1, 'batches.meta.txt'


@DATASETS.register_module()
class CIFAR100(_CIFAR):
    """100 classes, otherwise as CIFAR-10; the fine labels."""

    python_version = published.CIFAR100
    binary_folder = 'cifar-100-binary'
    binary_files = dict(train=['train.bin'], test=['test.bin'])
    label_bytes, class_file = 2, 'fine_label_names.txt'  # coarse, then fine


@lru_cache(maxsize=2)  # a run builds its sources a dozen times: for training, and for each look at it
def _scans(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All scans as (1797, size, size, 1) bytes, their classes, and the names of these."""
    scans = load_digits()
    grey = np.rint(scans.images * (255 / 16)).astype(np.uint8)[..., None]  # 17 levels, 0..16
    return np.stack([resize(image, size, size, 'bicubic') for image in grey]), scans.target, scans.target_names


@DATASETS.register_module()
class Digits(Source):
    """8x8 scans of digits, resized (bicubic) to size x size, one grey channel; Alpaydin and Kaynak, 1998.

    One fixed split, stratified by class: 1 437 'train', 360 'test'. The writers are not known to be disjoint.
    """

    lengths = dict(train=1437, test=360)

    def __init__(self, split: str = 'train', size: int = 16) -> None:
        super().__init__()
        check_words(type(self).__name__, split=(split, self.lengths))
        images, target, names = _scans(size)
        everyone = np.arange(len(target))
        train, test = train_test_split(everyone, test_size=360, stratify=target, random_state=0)
        self.split, self.members = split, np.sort(train if split == 'train' else test)
        self.images, self.labels = images[self.members], target[self.members]  # copies
        self.classes = [str(name) for name in names]

    def name(self, i: int) -> str:
        return f'digit {self.members[i]} of scikit-learn ({self.split} {i})'

    def read(self, i: int) -> np.ndarray:
        return self.images[i]
