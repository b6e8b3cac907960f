"""Images in the rows of parquet files, in the layout of Hugging Face."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mmkernel.checks import check_numbers, check_words
from mmkernel.registry import DATASETS

from .coded_labels import class_names, set_labels
from .images import MODES, decode
from .parquet_columns import Part, RowGroups, one_split, part_of, paths_of, pyarrow
from .shard_names import shard_files
from .shard_writer import write_shards
from .sources import Source
from .strings import Strings

_SLOW = 4e6  # bytes to read for one image


@DATASETS.register_module()
class Parquet(Source):
    """The images of a column of parquet files: encoded bytes, or a struct of ``bytes`` and ``path``, as Hugging Face writes it.

    Needs pyarrow: pip install 'mmkernel[parquet]'.
    files: a file, a folder of .parquet files, a pattern such as 'data/train-*.parquet', or a list of these.
    image: the column of images. label: that of one class per image, whole numbers or names; None: all labels are -1.
    classes: class names in the order of their numbers, or a text file with one per line. None: those that the file's
        metadata tell (ClassLabel); of a column of names all names, sorted.
    mode, upright, scale: as for ``ImageFolder``, but photographs are read as they are stored unless asked.
    cache_mb: row groups read last that each process keeps.

    A limit of the format: it is read in whole row groups, mostly of 100 to 1000 images. Where the set does not fit in the cache,
    an image in random order costs as many bytes as a group has, which a warning tells. Such a set is better
    copied once: ``Parquet(...).to_shards('folder')`` writes what ``TarShards('folder')`` reads, one image at a time.
    """

    def __init__(
        self,
        files: str | Sequence[str],
        image: str = 'image',
        label: str | None = 'label',
        classes: Sequence[str] | str | None = None,
        cache_mb: float = 256,
        mode: str = 'RGB',
        on_corrupt: str | int = 'raise',
        upright: bool = False,
        scale: float | tuple[float, float] | None = None,
    ) -> None:
        super().__init__(on_corrupt)
        self.upright, self.scale = upright, scale
        check_words(mode=(mode, MODES))
        check_numbers('Parquet', zero=True, cache_mb=cache_mb)
        self.mode, self.image_column, self.label_column, self.cache_mb = mode, image, label, cache_mb
        self.files = shard_files(files, '.parquet', 'Parquet')
        one_split(self.files)
        pyarrow()
        with ThreadPoolExecutor(16) as pool:
            parts = list(pool.map(lambda path: part_of(path, image, label), self.files))
        self.groups = [(k, g) for k, part in enumerate(parts) for g in range(len(part.rows))]  # (file, group in it)
        self.first = np.cumsum([0] + [n for part in parts for n in part.rows])
        if not self.first[-1]:
            raise FileNotFoundError(f"Parquet: no rows in {len(self.files)} file(s), the first '{self.files[0]}'.")
        self._set_labels(parts, class_names(classes, 'Parquet'))
        sizes = np.array([size for part in parts for size in part.sizes])
        per_image = float((sizes * np.diff(self.first)).sum() / self.first[-1])  # each image of a group costs the group
        if per_image > _SLOW and sizes.sum() > 1e6 * cache_mb:
            warnings.warn(
                f"Parquet: '{self.files[0]}' and so on have row groups of {per_image / 1e6:.0f} MB, which are read for each image "
                "in random order. Copy the images once into shards: Parquet(...).to_shards('folder'), then read "
                "TarShards('folder').",
                stacklevel=2,
            )

    def _set_labels(self, parts: list[Part], classes: list[str]) -> None:
        pa = pyarrow()
        for path, part in zip(self.files, parts, strict=True):
            if part.classes != parts[0].classes or part.kind != parts[0].kind:
                told = [
                    f"'{p}' has {x.kind}, classes {x.classes[:8]}" for p, x in ((self.files[0], parts[0]), (path, part))
                ]
                raise ValueError(
                    f'Parquet: the files differ in their labels, so a number has two meanings: {"; ".join(told)}. Read them one '
                    'by one, or write them with the same classes.'
                )
        classes = classes or parts[0].classes
        if parts[0].label is None:
            self.classes, self.labels = classes, np.full(self.first[-1], -1)
            return
        column = pa.chunked_array([chunk for part in parts for chunk in part.label.chunks], parts[0].label.type)
        kind = column.type
        if pa.types.is_string(kind):
            coded = column.dictionary_encode().combine_chunks()
            texts = coded.dictionary.to_pylist()
            set_labels(self, coded.indices.fill_null(-1).to_numpy(zero_copy_only=False), texts, classes)
            return
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise ValueError(
                f"Parquet: column '{self.label_column}' holds {kind}; expected one class per image, a number or a name. "
                'Several classes per image are read by a source of your own (`targets`).'
            )
        self.classes = classes
        self.labels = (column if pa.types.is_boolean(kind) else column.fill_null(-1)).to_numpy()

    def image_files(self) -> list[str]:
        return self.files

    def file_names(self) -> Strings | None:
        """The ``path`` of each image; None where there are none."""
        paths = [path for file in self.files for path in paths_of(file, self.image_column)]
        return None if None in paths else Strings.of(paths)

    def name(self, i: int) -> str:
        group = self._group_of(i)
        file, number = self.groups[group]
        row = i - self.first[group - number]  # all groups of a file follow one another
        return f'row {row} of {self.files[file]}'

    def _group_of(self, i: int) -> int:
        return int(np.searchsorted(self.first, i, 'right')) - 1

    def _open(self) -> RowGroups:
        return RowGroups(1e6 * self.cache_mb)

    def encoded(self, i: int) -> bytes:
        """The bytes of image i as they are in the file."""
        group = self._group_of(i)
        file, number = self.groups[group]
        value = self.arrays.images(self.files[file], number, self.image_column)[i - int(self.first[group])]
        if not value.is_valid:
            raise ValueError(f'{self.name(i)} has no bytes, perhaps only a path: write the images into the file.')
        return value.as_py()

    def read(self, i: int) -> np.ndarray:
        return decode(self.encoded(i), self.name(i), self.mode, self.upright, self.scale is not None)

    def to_shards(self, folder: str, per_shard: int = 1000) -> None:
        """Copy all images, as they are, into folder/000000.tar and so on, with their labels, and classes.txt: see ``TarShards``."""
        write_shards(self, folder, per_shard)
