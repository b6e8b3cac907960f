"""Images in tar files whose members share a key (the format of webdataset), read in any order through an index."""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmkernel.checks import check_words
from mmkernel.home import home
from mmkernel.registry import DATASETS

from .coded_labels import set_labels
from .images import MODES, decode
from .kept_arrays import Arrays, kept
from .shard_names import shard_files
from .shard_records import IMAGES, Records, shard_records
from .sources import Source
from .strings import Strings

_THREADS = 16  # most of the time is spent waiting for headers, of a file server above all


@DATASETS.register_module()
class TarShards(Source):
    """The images of tar files in which ``a/b/0001.jpg``, ``a/b/0001.cls``, ``a/b/0001.json`` are one record of key ``a/b/0001``.

    The format of webdataset (Aizman, Maltby and Breuel, High performance I/O for large scale deep learning, 2019): the key is
    the path up to the first dot of the file name. The headers are walked once, and an index kept beside the shards, or in the
    cache folder where they cannot be written to. From it, images are read in any order: each epoch is a shuffle of
    all images of all shards, each once over all ranks and workers, and a run resumes exactly.

    shards: a folder of .tar files, a file, a pattern such as 'train-{000000..000146}.tar' or '*.tar', or a list of these.
    image: the ending of the image where a record has several ('jpg', 'left.png'); None: the one of a known format.
    label: the ending of the file with the class, a number or a name; 'json:KEY': the value of KEY in the .json; 'folder': the
        first folder of the key. Records without one have the label -1.
    classes: the class names in the order of their numbers, or a text file with one per line. None: names in sorted order.
    mode, upright, scale: as for ``ImageFolder``, but photographs are read as they are stored unless asked.
    Compressed archives are refused, as are two files of one name in a shard, and shards that are cut short or damaged.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        image: str | None = None,
        label: str = 'cls',
        classes: Sequence[str] | str | None = None,
        mode: str = 'RGB',
        on_corrupt: str | int = 'raise',
        upright: bool = False,
        scale: float | tuple[float, float] | None = None,
    ) -> None:
        super().__init__(on_corrupt)
        self.upright, self.scale = upright, scale
        check_words(mode=(mode, MODES))
        if label == 'json':
            raise ValueError("TarShards: label='json' names no key; write label='json:KEY', e.g. 'json:label'.")
        self.mode, self.image_ending, self.label_ending = mode, image, label
        self.shards = shard_files(shards, '.tar', 'TarShards')
        self.states = [(each.st_size, each.st_mtime_ns) for each in map(os.stat, self.shards)]
        arrays = self.arrays  # made here once: an error shows early, and forked workers share them
        set_labels(self, arrays['label'], list(Strings(arrays['texts'], arrays['text_offsets'])), classes)

    def _open(self) -> Arrays:
        folder = Path(self.shards[0]).resolve().parent
        about = dict(index='tar 1', image=self.image_ending, label=self.label_ending)
        files = [os.path.relpath(path, folder) for path in self.shards]
        name = f'{hashlib.sha256(json.dumps([about, files]).encode()).hexdigest()[:16]}.index'
        about |= dict(files=files, states=self.states)
        return kept([folder / f'.mmkernel-{name}', home() / 'indexes' / name], about, self._index)

    def _index(self) -> Arrays:
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = list(pool.map(lambda path: shard_records(path, self.image_ending, self.label_ending), self.shards))
        self._check(parts)
        place: dict[str, int] = {}
        codes = [np.array([place.setdefault(text, len(place)) for text in part.texts] + [-1]) for part in parts]
        texts, names = Strings.of(place), Strings.joined([part.names for part in parts])
        return dict(
            first=np.cumsum([0] + [len(part.sizes) for part in parts]),
            offset=np.concatenate([part.offsets for part in parts]),
            size=np.concatenate([part.sizes for part in parts]),
            label=np.concatenate([code[part.codes] for code, part in zip(codes, parts, strict=True)]).astype(np.int32),
            texts=texts.data, text_offsets=texts.offsets, names=names.data, name_offsets=names.offsets,
        )  # fmt: skip

    def _check(self, parts: list[Records]) -> None:
        """FileNotFoundError without an image, ValueError without the labels asked for; a warning about records without an image."""
        endings = _counted(sum((part.endings for part in parts), Counter()))
        if not any(len(part.sizes) for part in parts):
            raise FileNotFoundError(
                f"TarShards: no image in {len(parts)} shard(s), the first '{self.shards[0]}'. Looked for "
                f'{self.image_ending or " ".join(IMAGES)}; there is: {endings}. Give the ending of the images, image=...'
            )
        if self.label_ending != 'cls' and not any(part.texts for part in parts):
            entries = _counted(sum((part.entries for part in parts), Counter()))
            raise ValueError(
                f'TarShards: no record has a label={self.label_ending!r}; '
                f'there is: {endings}'
                + (f'; the .json files have the keys {entries}.' if entries != 'nothing' else '.')
            )
        bare = [(key, path) for path, part in zip(self.shards, parts, strict=True) for key in part.bare]
        if bare:
            warnings.warn(
                f"TarShards: {len(bare)} record(s) have no image, e.g. '{bare[0][0]}' in '{bare[0][1]}'.", stacklevel=6
            )

    def file_names(self) -> Strings:
        return Strings(self.arrays['names'], self.arrays['name_offsets'])

    def image_files(self) -> list[str]:
        return self.shards

    def _shard(self, i: int) -> int:
        return int(np.searchsorted(self.arrays['first'], i, 'right')) - 1

    def name(self, i: int) -> str:
        return f'{self.file_names()[i]} in {self.shards[self._shard(i)]}'

    def read(self, i: int) -> np.ndarray:
        shard, offset, size = self._shard(i), int(self.arrays['offset'][i]), int(self.arrays['size'][i])
        data = _opened(self.shards[shard], self.states[shard]).read(size, offset)
        return decode(data, self.name(i), self.mode, self.upright, self.scale is not None)


def _counted(words: Counter) -> str:
    return ', '.join(f'{word} ({count})' for word, count in words.most_common(8)) or 'nothing'


class _File:
    """A file of this state (size, time of change), closed when nothing uses it any more."""

    number = -1

    def __init__(self, path: str, state: tuple[int, int]) -> None:
        self.path, self.state, self.number = path, state, os.open(path, os.O_RDONLY)

    def read(self, size: int, offset: int) -> bytes:
        """Without moving a position, which forked workers would share."""
        found = os.fstat(self.number)
        if (found.st_size, found.st_mtime_ns) != self.state:
            raise OSError(
                f"'{self.path}' has changed since the run began: its images lie elsewhere in it. Start again."
            )
        return os.pread(self.number, size, offset)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


_opened = lru_cache(maxsize=128)(_File)  # of this process: a shard that is asked for again is open already
