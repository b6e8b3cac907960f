"""The download cache: files are verified against the published hash, the hash in their name or that of their first use."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from rich.console import Console

from mmkernel.hashes import hashes, wrong_name
from mmkernel.home import home
from mmkernel.writing import replacing, size_of
from mmkernel.zoo.catalogue import list_models, model_info, path_of, weights_folder
from mmkernel.zoo.metafile import ModelInfo, Part, WeightsFile

console = Console(stderr=True, highlight=False)
LEFTOVERS = '.arriving-* *.piece *.joined *.whole *.rejected-* .*.failed'.split()


class CheckpointError(RuntimeError):
    """A file that is not a checkpoint, is damaged, or belongs to another architecture."""


class DownloadError(RuntimeError):
    """Weights that could not be downloaded; the message says how to get them by hand."""


class HashMismatchError(DownloadError, CheckpointError):
    """A file whose hash differs from the published one, the one in its name, or the one of its first use."""


def published(part: Part) -> str | None:
    """Which hash is published: 'sha256', 'sha256 prefix', 'md5', 'md5 prefix', or None."""
    for name, value, length in (('sha256', part.sha256, 64), ('md5', part.md5, 32)):
        if value:
            return name if len(value) == length else f'{name} prefix'
    return None


def check_published(part: Part, found: dict[str, str], size: int | None = None) -> None:
    """HashMismatchError if a published hash or size differs from the one found."""
    if part.size is not None and size is not None and part.size != size:
        raise HashMismatchError(f"'{part.name}' has {size} bytes; {part.size} are published.")
    for name in ('sha256', 'md5'):
        wanted = getattr(part, name)
        if wanted and not found[name].startswith(wanted):
            given = found[name][: len(wanted)]
            raise HashMismatchError(f"'{part.name}' has the {name} {given}; {wanted} is published: it was changed.")


def check_file(path: Path) -> None:
    """HashMismatchError if the hash of a file differs from the one in its name or the one pinned in the cache."""
    if problem := wrong_name(path):
        raise HashMismatchError(problem)
    folder = path.resolve().parent
    inside = folder.parent.name == 'weights' and folder.parent == weights_folder().resolve()
    pin = Pins().read().get(f'{folder.name}/{path.name}') if inside else None
    if pin is not None and pin['sha256'] != (found := hashes([path])['sha256']):
        raise HashMismatchError(
            f"'{path}' has the sha256 {found[:8]}; at its first use on {pin['date']} it had {pin['sha256'][:8]}: it was damaged or "
            'changed. Delete it and fetch it again (mmkernel zoo download).'
        )


class Pins:
    """``pins.json`` of the cache folder: hash and date of each file when it was first used."""

    def __init__(self) -> None:
        self.path = home() / 'pins.json'

    def read(self) -> dict[str, dict[str, Any]]:
        if not self.path.is_file():
            return {}
        try:
            found = json.loads(self.path.read_text(encoding='utf-8'))
            if not all(isinstance(pin[key], str) for pin in found.values() for key in ('sha256', 'date')):
                raise ValueError('hashes and dates are texts')
            return found
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DownloadError(f'{self.path} is damaged ({error}); delete it to pin anew.') from error

    def pin(self, key: str, sha256: str, how: str) -> None:
        """Record the hash of a file; HashMismatchError if another hash is recorded under this name."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{self.path}.lock'):
            pins = self.read()
            old = pins.get(key)
            if old and old['sha256'] != sha256:
                raise HashMismatchError(
                    f"'{key}' has the sha256 {sha256[:8]}; on {old['date']} it had {old['sha256'][:8]}, and none is published. "
                    f'If the change is known to be right, remove the entry from {self.path}.'
                )
            date = old['date'] if old else time.strftime('%Y-%m-%d')
            pins[key] = dict(sha256=sha256, checked=how, date=date)
            with replacing(self.path) as temporary:
                temporary.write_text(json.dumps(pins, indent=1, sort_keys=True) + '\n', encoding='utf-8')

    def unchanged(self, key: str, path: Path) -> bool:
        """Whether the file has the pinned hash. All bytes are read: a flipped bit changes neither size nor modification time."""
        pin = self.read().get(key)
        return pin is not None and pin['sha256'] == hashes([path])['sha256']


def accept(part: Part, found: Path, path: Path, key: str | None = None, archive: str | None = None) -> None:
    """Check the bytes of ``found``, pin them under ``key`` and move the file to ``path``; a wrong file is set aside.

    ``archive``: which hash of its archive was checked before. The hash of an unpacked ``part`` is that of the archive, so a
    file that somebody unpacked by hand has none.
    """
    digests, unpacked = hashes([found]), bool(getattr(part, 'unpack', None))
    known = archive if unpacked else published(part)
    try:
        if not unpacked:
            check_published(part, digests, found.stat().st_size)
        if key:
            Pins().pin(key, digests['sha256'], known or 'first use')
    except HashMismatchError as error:
        raise HashMismatchError(f'{error} {reject(found, path, digests["sha256"])}') from error
    if found != path:
        with replacing(path) as whole:  # or absent
            os.replace(found, whole)
    if key and not known:
        console.print(f'{path.name}: no hash is published; pinned on first use, sha256 {digests["sha256"][:16]}...')


def reject(found: Path, path: Path, sha256: str) -> str:
    """Rename a wrong file, so that it is kept but not used, and return a sentence that says so."""
    aside = path.with_name(f'{path.name}.rejected-{sha256[:8]}')
    os.replace(found, aside)
    return f'The file was set aside as {aside} and is not used.'


class Verdict(NamedTuple):
    """The result for one file. ``fine``: False if its bytes differ from the published or pinned ones, None if neither exists."""

    name: str
    path: Path
    fine: bool | None
    why: str


def files_here(info: ModelInfo) -> list[tuple[WeightsFile, Path]]:
    """The files of a row that are in the cache (or in the package)."""
    return [(file, path) for file in info.files if (path := path_of(info, file)).is_file()]


def verify(names: list[str] | None = None) -> list[Verdict]:
    """Hash all files in the cache (of all models, or of ``names``) and compare with what is published or pinned."""
    pins, found, rows = Pins().read(), [], map(model_info, names or list_models(pretrained=True))
    for name, file, path in ((row.name, *here) for row in rows for here in files_here(row)):
        digests, pin = hashes([path]), pins.get(f'{name}/{path.name}')
        known = published(file) if not file.unpack else None
        fine, why = None, 'no hash is published, and it was not used yet'
        if known:
            fine, why = True, f'as published ({known})'
        elif pin:
            fine, why = True, f'as at its first use on {pin["date"]}; no hash is published'
        try:
            if known:
                check_published(file, digests, path.stat().st_size)
            if pin and pin['sha256'] != digests['sha256']:
                fine, why = False, f'it has changed since {pin["date"]}, when it was pinned'
        except HashMismatchError as error:
            fine, why = False, str(error)
        found.append(Verdict(name, path, fine, why))
    return found


def clean(names: list[str] | None = None, leftovers: bool = False) -> tuple[int, list[Path]]:
    """Remove the folders of ``names``, or of all models, and return (bytes, paths). ``leftovers``: only files of broken downloads.

    Pinned hashes (``pins.json``) are kept: a file that is downloaded again must be the same. A folder that is in use stays.
    """
    folder = weights_folder()
    chosen = [folder / model_info(name).name for name in names] if names else sorted(folder.glob('*/'))
    folders = [path for path in chosen if not _busy(path)]
    found = [path for top in folders for pattern in LEFTOVERS for path in top.glob(pattern)]
    found = found if leftovers else [path for path in folders if path.exists()]
    size = sum(size_of(path) for path in found)
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return size, found


def _busy(folder: Path) -> bool:
    """Whether a process holds the lock under which files arrive here."""
    try:
        for path in folder.glob('.*.lock'):
            FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    return False
