"""Encoded images (JPEG or other) in one npz file."""

from pathlib import Path

import numpy as np

from mmkernel.checks import check_words
from mmkernel.limits import DAMAGED, LimitError, check_npz
from mmkernel.registry import DATASETS

from .images import MODES, decode, value_range
from .sources import Source


@DATASETS.register_module()
class NpzPack(Source):
    """Encoded images in one .npz, each decoded when it is read.

    Keys of split S: ``S_jpeg`` uint8 (all bytes), ``S_off`` int64 (N + 1 offsets); if present ``S_label`` int64 (N),
    ``S_file`` (N names), ``classes``. Any format that Pillow reads may be used instead of JPEG, or .npy.
    Pickled arrays are refused. mode, upright, scale: as for ``ImageFolder``, but packs are read as they are stored unless asked.
    FileNotFoundError, or ValueError naming the key, if the file is not such a pack.
    """

    def __init__(
        self,
        path: str,
        split: str = 'train',
        mode: str = 'RGB',
        on_corrupt: str = 'raise',
        upright: bool = False,
        scale: float | tuple[float, float] | None = None,
    ) -> None:
        super().__init__(on_corrupt)
        self.upright, self.scale = upright, value_range(scale)
        check_words(mode=(mode, MODES))
        self.path, self.split, self.mode = str(Path(path).expanduser()), split, mode
        _, self.offsets, small = self.arrays  # opened here once: an error shows early, and forked workers share it
        count = len(self.offsets) - 1
        self.classes = small['classes'].tolist() if 'classes' in small else []
        self.files = small.get('file')
        for key in ('label', 'file'):
            if key in small and small[key].shape != (count,):
                raise ValueError(f"'{self.path}': {split}_{key} has {small[key].size} entries for {count} images")
        self.labels = small.get('label', np.full(count, -1))

    def _open(self) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"NpzPack: '{self.path}' does not exist (working directory '{Path.cwd()}')")
        try:
            check_npz(self.path)
            with np.load(self.path, allow_pickle=False) as pack:
                return self._pick(pack)
        except DAMAGED as error:
            if type(error) in (ValueError, LimitError):  # ours
                raise
            raise ValueError(f"'{self.path}' is damaged or not an .npz file ({error}). Copy it again.") from error

    def _pick(self, pack: np.lib.npyio.NpzFile) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        missing = [key for key in (f'{self.split}_jpeg', f'{self.split}_off') if key not in pack]
        if missing:
            splits = sorted(key[: -len('_jpeg')] for key in pack if key.endswith('_jpeg'))
            raise ValueError(f"'{self.path}' has no key {missing[0]}; its splits: {', '.join(splits) or 'none'}")
        data, offsets = (self._array(pack, f'{self.split}_{key}') for key in ('jpeg', 'off'))
        if data.dtype != np.uint8 or data.ndim != 1 or offsets.dtype.kind not in 'iu' or offsets.ndim != 1:
            raise ValueError(
                f"'{self.path}': {self.split}_jpeg is {data.dtype} {data.shape}, {self.split}_off {offsets.dtype} "
                f'{offsets.shape}; expected all bytes of the encoded files, uint8 (bytes,), and whole numbers (N + 1,)'
            )
        offsets = offsets.astype(np.int64)  # differences of unsigned numbers are never negative
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
            raise ValueError(f"'{self.path}': {self.split}_off must rise from 0 to {len(data)}, the number of bytes")
        small = {
            key: self._array(pack, f'{self.split}_{key}') for key in ('label', 'file') if f'{self.split}_{key}' in pack
        }
        return data, offsets, small | ({'classes': self._array(pack, 'classes')} if 'classes' in pack else {})

    def _array(self, pack: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
        try:
            return pack[key]
        except ValueError as error:  # numpy's own names neither file nor key
            raise ValueError(
                f"'{self.path}': {key} cannot be read ({error}). Expected numbers, or np.array(names, str)."
            ) from error

    def name(self, i: int) -> str:
        return f'record {i} of {self.path}[{self.split}]' + (f' ({self.files[i]})' if self.files is not None else '')

    def file_names(self) -> np.ndarray | None:
        return self.files

    def image_files(self) -> list[str]:
        return [self.path]

    def read(self, i: int) -> np.ndarray:
        data = self.arrays[0]
        return decode(
            data[self.offsets[i] : self.offsets[i + 1]].tobytes(),
            self.name(i),
            self.mode,
            self.upright,
            self.scale is not None,
        )
