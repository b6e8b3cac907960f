"""Images in folders."""

import os
from pathlib import Path

import numpy as np

from mmkernel.checks import check_numbers, check_words
from mmkernel.registry import DATASETS

from .images import MODES, decode
from .paths import Paths
from .scanned import about_files, scan
from .sources import Source, existing_folder

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif', '.ppm', '.pgm')


def class_folders(folder: Path, owner: str, expected: str) -> list[str]:
    """Names of the folders in ``folder``, one per class, sorted, without hidden ones; FileNotFoundError if there is none."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != '.')
    if not names:
        count = len(os.listdir(folder))
        raise FileNotFoundError(
            f"{owner}: '{folder}' has no class folders (it holds {count} entries). Expected: {expected}."
        )
    return names


class FileSource(Source):
    """Image files below ``root``; ``paths`` are relative to it."""

    def __init__(
        self, root: Path, paths: Paths | list[str], labels: np.ndarray, mode: str, on_corrupt: str | int
    ) -> None:
        super().__init__(on_corrupt)
        check_words(mode=(mode, MODES))
        self.root, self.mode = str(root), mode
        self.paths = paths if isinstance(paths, Paths) else Paths.of(paths)
        self.labels = labels
        if len(self.labels) != len(paths):
            raise ValueError(f"{type(self).__name__}: {len(paths)} files in '{root}', but {len(self.labels)} labels.")

    def name(self, i: int) -> str:
        return os.path.join(self.root, self.paths[i])

    def file_names(self) -> Paths:
        return self.paths

    def image_files(self) -> Paths:
        return self.paths.under(self.root)

    def read(self, i: int) -> np.ndarray:
        return decode(self.name(i), self.name(i), self.mode, self.upright, self.scale is not None)


@DATASETS.register_module()
class ImageFolder(FileSource):
    """Every image file below ``root``, in any depth, each once (see ``walk``). No labels are needed: each label is -1.

    labels=True: the first folder below ``root`` names the class (as torchvision's ImageFolder).
    ``skipped``: {ending: number} of the other files. A large folder is listed once (see ``scan``).
    mode: 'RGB', or 'L' for one grey channel.
    FileNotFoundError if the folder is missing or holds no image.

    mode='all': the bands that a file has, or the pages of a TIFF. Arrays of numpy, extensions='.npy', have their own channels.
    upright: turn photographs by their EXIF orientation. Published sets are read as they are stored: False.
    scale: (low, high), or high alone: values of 16 bits or floats that become 0 and 255, see ``scaled``.
    """

    def __init__(
        self,
        root: str,
        labels: bool = False,
        extensions: tuple[str, ...] = EXTENSIONS,
        mode: str = 'RGB',
        on_corrupt: str = 'raise',
        upright: bool = True,
        scale: float | tuple[float, float] | None = None,
    ) -> None:
        self.upright, self.scale = upright, scale
        folder = existing_folder(root, 'ImageFolder', 'a folder with image files, in subfolders or not')
        wanted = tuple(e.lower() for e in ((extensions,) if isinstance(extensions, str) else extensions))
        paths = scan(folder, wanted)
        self.skipped = about_files(paths)['skipped']
        if not len(paths):
            others = ', '.join(f'{count} {ending}' for ending, count in self.skipped.items())
            others = f'{sum(self.skipped.values())} other file(s)' + (f': {others}' if others else '')
            raise FileNotFoundError(
                f"ImageFolder: no images in '{folder}' or below. Looked for {' '.join(wanted)} (any case); found {others}. "
                'Check `root`, or give `extensions`.'
            )
        numbers = np.full(len(paths), -1)
        if labels:
            numbers, self.classes = _first_folders(paths, folder)
        super().__init__(folder, paths, numbers, mode, on_corrupt)


def _first_folders(paths: Paths, root: Path) -> tuple[np.ndarray, list[str]]:
    """(numbers of the first folder of each path, their names sorted); ValueError for files without one."""
    count = np.bincount(paths.arrays['folder'], minlength=len(paths.arrays['folder_ends']) - 1)
    first = [folder.partition('/')[0] for folder in paths.folders]
    if loose := sum(int(n) for n, name in zip(count, first, strict=True) if not name):
        raise ValueError(
            f"ImageFolder(labels=True): '{paths[0]}' and {loose - 1} more lie directly in '{root}', so they have no class. "
            'Expected root/<class>/<image>; or set labels=False.'
        )
    classes = sorted({name for n, name in zip(count, first, strict=True) if n})
    number = {name: k for k, name in enumerate(classes)}
    return np.array([number.get(name, -1) for name in first])[paths.arrays['folder']], classes


@DATASETS.register_module()
class ImageNet(FileSource):
    """root/<split>/<wnid>/*.JPEG; labels are the positions of the wnids in sorted order.

    images_per_class=260 keeps the first 260 of each class in sorted file order (the 20 % subset of Zheng et al., 2023);
    held_out=True takes the next 260 instead, meant for tuning. (The published code starts one image later.)
    """

    lengths = dict(train=1281167, val=50000)
    wnids: tuple[str, ...] | None = None  # the classes of a subclass that has some of the 1000

    def __init__(
        self,
        root: str,
        split: str = 'train',
        images_per_class: int | None = None,
        held_out: bool = False,
        on_corrupt: str = 'raise',
    ) -> None:
        check_words(type(self).__name__, split=(split, self.lengths))
        if held_out and images_per_class is None:
            raise ValueError('held_out=True takes the images after the first images_per_class: give images_per_class')
        kind = type(self).__name__
        check_numbers(kind, whole=True, none=True, images_per_class=images_per_class)
        layout = f'<root>/{split}/<wnid>/*.JPEG, one folder per class'
        folder = existing_folder(Path(root) / split, kind, layout)
        found = class_folders(folder, kind, f'{layout}; the validation images are sorted into class folders too')
        if missing := sorted(set(self.wnids or ()) - set(found)):
            raise FileNotFoundError(
                f"{kind}: {len(missing)} of its {len(self.wnids)} class folders are missing in '{folder}': "
                f'{" ".join(missing[:4])}. Expected {layout}.'
            )
        self.classes = sorted(self.wnids or found)
        one = {(folder / wnid).resolve(): wnid for wnid in self.classes}
        if twice := sorted(set(self.classes) - set(one.values())):
            other = one[(folder / twice[0]).resolve()]
            raise ValueError(f"{kind}: '{twice[0]}' and '{other}' in '{folder}' are one folder: remove the link.")
        first = images_per_class if held_out else 0
        paths, labels = [], []
        last = None if images_per_class is None else first + images_per_class
        for number, wnid in enumerate(self.classes):
            names = os.listdir(folder / wnid)
            files = sorted(name for name in names if name.lower().endswith(('.jpeg', '.jpg')) and name[0] != '.')
            taken = files[first:last]
            if len(taken) < (images_per_class or 1):
                wanted = f'images {first} to {last - 1}' if last else 'at least one image'
                raise FileNotFoundError(
                    f"{kind}: {wanted} wanted in '{folder / wnid}', which has {len(files)} .JPEG files"
                )
            paths += [os.path.join(wnid, name) for name in taken]
            labels += [number] * len(taken)
        super().__init__(folder, paths, labels, 'RGB', on_corrupt)

    @classmethod
    def expected_length(cls, split: str = 'train', images_per_class: int | None = None, **_: object) -> int:
        return len(cls.wnids or range(1000)) * images_per_class if images_per_class else cls.lengths[split]
