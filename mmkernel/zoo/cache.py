"""What lies in the cache folder: is it whole, how much room does it take, away with it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mmkernel.hashes import hashes
from mmkernel.zoo.catalogue import list_models, model_info, path_of, weights_folder
from mmkernel.zoo.metafile import ModelInfo, WeightsFile
from mmkernel.zoo.pins import HashMismatchError, Pins, check_published, published

LEFTOVERS = ('.arriving-*', '*.piece', '*.whole', '*.rejected-*', '.*.failed', '*.partial', '*.partial.json')


@dataclass(frozen=True)
class Verdict:
    """``fine`` False: other bytes than published or pinned, None: nothing to compare with."""

    name: str
    path: Path
    fine: bool | None
    why: str


def files_here(info: ModelInfo) -> list[tuple[WeightsFile, Path]]:
    """The files of a row that are in the cache (or in the package)."""
    return [(file, path) for file in info.files if (path := path_of(info, file)).is_file()]


def verify(names: list[str] | None = None) -> list[Verdict]:
    """Read every byte of the files that are here (of all models, or of ``names``) and compare."""
    infos = [model_info(name) for name in names or list_models(pretrained=True)]
    return [_verdict(info, file, path) for info in infos for file, path in files_here(info)]


def _verdict(info: ModelInfo, file: WeightsFile, path: Path) -> Verdict:
    digests, pin = hashes([path]), Pins().read().get(f'{info.name}/{path.name}')
    known = published(file) if not file.unpack else None
    try:
        if known:
            check_published(file, digests, path.stat().st_size)
    except HashMismatchError as error:
        return Verdict(info.name, path, False, str(error))
    if pin and pin['sha256'] != digests['sha256']:
        return Verdict(info.name, path, False, f'it has changed since {pin["date"]}, when it was pinned')
    if known or pin:
        why = f'as published ({known})' if known else f'as at its first use on {pin["date"]}; no hash is published'
        return Verdict(info.name, path, True, why)
    return Verdict(info.name, path, None, 'no hash is published, and it was not used yet')


def clean(names: list[str] | None = None, leftovers: bool = False) -> tuple[int, list[Path]]:
    """(bytes, paths) removed: the folders of ``names``, or of all models; ``leftovers``: only what broken downloads left.

    Hashes pinned on first use are kept (``pins.json``), so that what is fetched again must be the same.
    """
    folder = weights_folder()
    folders = [folder / model_info(name).name for name in names] if names else sorted(folder.glob('*/'))
    found = [path for top in folders for path in (_leftovers(top) if leftovers else [top]) if path.exists()]
    size = sum(size_of(path) for path in found)
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return size, found


def _leftovers(folder: Path) -> list[Path]:
    return [path for pattern in LEFTOVERS for path in folder.glob(pattern)]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = path.rglob('*') if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
