"""Download and verify the weights of a model: mirrors in order, one download for all ranks, a file is complete or absent."""

import gzip
import shutil
import tarfile
import time
from functools import partial
from pathlib import Path, PurePosixPath

from filelock import FileLock

from mmkernel.hashes import hashes
from mmkernel.limits import DAMAGED, LimitError, check_unpacked
from mmkernel.zoo.catalogue import PACKAGE, offline, path_of, weights_folder
from mmkernel.zoo.files import DiskFullError, room_for
from mmkernel.zoo.metafile import ModelInfo, Part, WeightsFile
from mmkernel.zoo.mirrors import from_mirrors
from mmkernel.zoo.pins import (
    DownloadError,
    HashMismatchError,
    Pins,
    accept,
    check_published,
    console,
    published,
    reject,
)  # fmt: skip

WEIGHTS = ('.pth', '.pt', '.tar', '.pkl', '.bin', '.safetensors', '.ckpt')


def download(info: ModelInfo, stage: str = 'backbone', progress: bool = True) -> Path:
    """The path of the verified file of ``info`` with the weights of ``stage``, fetched if it is not there yet.

    Errors: ValueError if the row has no such file; DownloadError, with what to do by hand, if no mirror gives it;
    HashMismatchError for a file with other bytes than published (or than at its first use); DiskFullError.
    """
    file = info.file(stage)
    if file is None:
        there = ', '.join(dict.fromkeys(file.stage for file in info.files)) or 'no public weights'
        raise ValueError(f"'{info.name}' has no file of the stage '{stage}'; there is: {there}.")
    path = path_of(info, file)
    key = f'{info.name}/{path.name}'
    if PACKAGE in path.parents:
        if not path.is_file():
            raise DownloadError(f"'{info.name}' comes with the package, but {path} is missing: install mmkernel again.")
        check_published(file, hashes([path]), path.stat().st_size)
    elif not (path.is_file() and Pins().unchanged(key, path)):
        if offline() and not path.is_file():
            said = f"'{info.name}' is not in the cache, and MMKERNEL_OFFLINE forbids downloads."
            raise DownloadError(f'{said} {by_hand(file, path)}')
        try:
            _fetch_once(info, file, path, key, progress)
        except PermissionError as error:
            said = f'{error.filename or path} cannot be written ({error.strerror})'
            raise DownloadError(f'{said}: set MMKERNEL_HOME to a folder of yours.') from error
    return path


def by_hand(file: WeightsFile, path: Path) -> str:
    """How to get the file by hand."""
    steps = f'Download {" and ".join(part.urls[0] for part in file.parts or (file,))} by hand'
    if file.parts:
        steps += ', join them in this order' + (' (cat ... > all.tar.gz)' if file.unpack else '')
    if file.unpack:
        steps += f', unpack ({file.unpack})'
    return f'{steps} and put the file at {path} (the folder is {weights_folder()}; MMKERNEL_HOME moves it).'


def _fetch_once(info: ModelInfo, file: WeightsFile, path: Path, key: str, progress: bool) -> None:
    """Fetch the file in the first process that asks; the others wait for it and take its file or its error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    asked, failed = time.time(), path.with_name(f'.{path.name}.failed')
    with FileLock(path.with_name(f'.{path.name}.lock')):
        if _accepted(file, path, key):
            return
        if failed.is_file() and failed.stat().st_mtime > asked:
            raise DownloadError(failed.read_text(encoding='utf-8'))
        try:
            _assemble(file, path, key, progress)
        except DownloadError as error:
            known = isinstance(error, DiskFullError)  # says itself what to do
            said = str(error) if known else f"'{info.name}' could not be fetched. {error} {by_hand(file, path)}"
            failed.write_text(said, encoding='utf-8')
            raise type(error)(said) from error
        failed.unlink(missing_ok=True)


def _accepted(file: WeightsFile, path: Path, key: str) -> bool:
    """Whether a correct file is in place. A file put there by hand is checked and pinned; a wrong one is set aside."""
    if not path.is_file() or Pins().unchanged(key, path):
        return path.is_file()
    try:
        accept(file, path, path, key)
    except HashMismatchError as error:
        if offline():
            raise
        console.print(f'{error} It is downloaded again.')
        return False
    return True


def _assemble(file: WeightsFile, path: Path, key: str, progress: bool) -> None:
    """Fetch the file or its parts, check them, join and unpack them. Parts that arrived are kept if another one fails."""
    if not (file.parts or file.unpack):
        return from_mirrors(file, path, progress, partial(accept, file, path=path, key=key))
    parts = file.parts or (Part(file.name, file.urls, file.sha256, file.md5, file.size),)
    pieces = [path.with_name(f'{part.name}.piece') for part in parts]
    joined, whole = path.with_name(f'{path.name}.joined'), path.with_name(f'{path.name}.whole')
    for part, piece in zip(parts, pieces, strict=True):
        if not piece.is_file():
            from_mirrors(part, piece, progress, partial(accept, part, path=piece))
    try:
        _join(pieces, joined)
        if file.parts:
            check_published(file, hashes([joined]), joined.stat().st_size)
        if file.unpack:
            _unpack(joined, whole, file.name)
    except (HashMismatchError, ArchiveError) as error:
        aside = [reject(piece, piece, hashes([piece])['sha256']) for piece in pieces]
        for path in (joined, whole):
            path.unlink(missing_ok=True)
        raise type(error)(f'{error} {" ".join(aside)}') from error
    accept(file, whole if file.unpack else joined, path, key, archive=published(file))
    for piece in (*pieces, joined):
        piece.unlink(missing_ok=True)


def _join(paths: list[Path], target: Path) -> None:
    """Concatenate ``paths``."""
    with room_for(target, sum(path.stat().st_size for path in paths)), open(target, 'wb') as out:
        for path in paths:
            with open(path, 'rb') as file:
                shutil.copyfileobj(file, out, 1 << 20)


class ArchiveError(DownloadError):
    """An archive that is damaged, or does not contain exactly one file of weights."""


def _unpack(path: Path, target: Path, name: str) -> None:
    """Write the only file of weights in a gzipped tar to ``target``; names in the archive are never used as paths."""
    try:
        _check_gzip(path, name)
        with tarfile.open(path, 'r:gz') as archive:
            members = [m for m in archive if m.isfile() and _is_weights(PurePosixPath(m.name))]
            if len(members) != 1:
                found = ', '.join(member.name for member in members) or f'none that ends in {", ".join(WEIGHTS)}'
                raise ArchiveError(f"'{name}' must contain one file of weights; it contains {found}.")
            # a sparse file is larger than its archive
            check_unpacked(f"'{name}'", path.stat().st_size, members[0].size)
            with room_for(target, members[0].size), open(target, 'wb') as file:
                shutil.copyfileobj(archive.extractfile(members[0]), file, 1 << 20)
    except LimitError as error:
        raise ArchiveError(str(error)) from error
    except ArchiveError:
        raise
    except (tarfile.TarError, *DAMAGED) as error:
        if isinstance(error, DiskFullError) or getattr(error, 'errno', None) is not None:
            raise
        raise ArchiveError(
            f"'{name}' is not a complete .tar.gz: {error}. Were its parts joined in their order?"
        ) from error


def _is_weights(name: PurePosixPath) -> bool:
    """A Mac adds files ._NAME of its own."""
    return name.suffix in WEIGHTS and not name.name.startswith('._')


def _check_gzip(path: Path, name: str) -> None:
    """LimitError if a gzipped file is too large for its size. It is read through: its end may be wrong, or cut off."""
    given, unpacked = path.stat().st_size, 0
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 20):
                unpacked += len(block)
                check_unpacked(f"'{name}'", given, unpacked)
    except LimitError:  # its end says to what the limit has to be raised
        with open(path, 'rb') as file:
            file.seek(given - 4)
            check_unpacked(f"'{name}'", given, max(unpacked, int.from_bytes(file.read(), 'little')))
