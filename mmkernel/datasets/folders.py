"""Images in folders."""

import os
from pathlib import Path

import numpy as np

from mmkernel.checks import check_numbers, check_words
from mmkernel.registry import DATASETS

from .images import MODES, decode
from .sources import Source, existing_folder
from .walk import walk

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


class Paths:
    """Many strings in one array. A list of a million Python strings is copied page by page into every forked worker,
    because reading one changes its reference count."""

    def __init__(self, paths: list[str]) -> None:
        self.encoded = np.array([os.fsencode(path) for path in paths], np.bytes_)

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, i: int) -> str:
        return os.fsdecode(self.encoded[i])


class FileSource(Source):
    """Image files below ``root``; ``paths`` are relative to it."""

    def __init__(self, root: Path, paths: list[str], labels: np.ndarray, mode: str, on_corrupt: str) -> None:
        super().__init__(on_corrupt)
        check_words(mode=(mode, MODES))
        self.root, self.mode = str(root), mode
        self.paths = Paths(paths)
        self.labels = labels
        if len(self.labels) != len(paths):
            raise ValueError(f"{type(self).__name__}: {len(paths)} files in '{root}', but {len(self.labels)} labels.")

    def name(self, i: int) -> str:
        return os.path.join(self.root, self.paths[i])

    def file_names(self) -> Paths:
        return self.paths

    def image_files(self) -> list[str]:
        return [self.name(i) for i in range(len(self))]

    def read(self, i: int) -> np.ndarray:
        return decode(self.name(i), self.name(i), self.mode)


@DATASETS.register_module()
class ImageFolder(FileSource):
    """Every image file below ``root``, in any depth, each once (see ``walk``). No labels are needed: each label is -1.

    labels=True: the first folder below ``root`` names the class (as torchvision's ImageFolder).
    mode: 'RGB', or 'L' for one grey channel.
    FileNotFoundError if the folder is missing or holds no image.
    """

    def __init__(
        self,
        root: str,
        labels: bool = False,
        extensions: tuple[str, ...] = EXTENSIONS,
        mode: str = 'RGB',
        on_corrupt: str = 'raise',
    ) -> None:
        folder = existing_folder(root, 'ImageFolder', 'a folder with image files, in subfolders or not')
        wanted = tuple(e.lower() for e in ((extensions,) if isinstance(extensions, str) else extensions))
        paths = walk(folder, wanted)
        if not paths:
            found = walk(folder)
            example = f", for example '{found[0]}'" if found else ''
            raise FileNotFoundError(
                f"ImageFolder: no images in '{folder}' or below. Looked for {' '.join(wanted)} (any case); found "
                f'{len(found)} other file(s){example}. Check `root`, or give `extensions`.'
            )
        numbers = np.full(len(paths), -1)
        if labels:
            if loose := [path for path in paths if os.sep not in path]:
                raise ValueError(
                    f"ImageFolder(labels=True): '{loose[0]}' and {len(loose) - 1} more lie directly in '{folder}', "
                    'so they have no class. Expected root/<class>/<image>; or set labels=False.'
                )
            names, numbers = np.unique([path.split(os.sep, 1)[0] for path in paths], return_inverse=True)
            self.classes = names.tolist()
        super().__init__(folder, paths, numbers, mode, on_corrupt)


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
