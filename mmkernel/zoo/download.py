"""From a row of the zoo to a verified file: mirrors in their order, one download for all ranks, whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mmkernel.hashes import hashes
from mmkernel.zoo.archives import ArchiveError, join, unpack
from mmkernel.zoo.errors import DiskFullError, DownloadError, HashMismatchError
from mmkernel.zoo.metafile import ModelInfo, Part, WeightsFile
from mmkernel.zoo.pins import Pins, check_published
from mmkernel.zoo.places import PACKAGE, offline
from mmkernel.zoo.placing import accept, accept_piece, by_hand, console, key_of, path_of, set_aside
from mmkernel.zoo.transfer import PATIENT, Patience, Report, fetch_url


def download(info: ModelInfo, holds: str = 'backbone', patience: Patience = PATIENT, progress: bool = True) -> Path:
    """The path of the verified file of ``info`` that holds this, fetched if it is not there yet.

    Errors: ValueError if the row has no such file; DownloadError, with what to do by hand, if no mirror gives it;
    HashMismatchError for a file with other bytes than published (or than at its first use); DiskFullError.
    """
    file = info.file(holds)
    if file is None:
        there = ', '.join(dict.fromkeys(file.holds for file in info.files)) or 'no public weights'
        raise ValueError(f"'{info.name}' has no file that holds '{holds}'; there is: {there}.")
    path = path_of(info, file)
    if PACKAGE in path.parents:
        if not path.is_file():
            raise DownloadError(f"'{info.name}' comes with the package, but {path} is missing: install mmkernel again.")
        check_published(file, hashes([path]), path.stat().st_size)
    elif not (path.is_file() and Pins().unchanged(key_of(info, path), path)):
        if offline() and not path.is_file():
            raise DownloadError(
                f"'{info.name}' is not in the cache, and MMKERNEL_OFFLINE forbids to fetch it. {by_hand(info, file)}"
            )
        try:
            _fetch_once(info, file, path, patience, progress)
        except PermissionError as error:
            raise DownloadError(
                f'{error.filename or path} cannot be written ({error.strerror}): set MMKERNEL_HOME to a folder of yours.'
            ) from error
    return path


def _fetch_once(info: ModelInfo, file: WeightsFile, path: Path, patience: Patience, progress: bool) -> None:
    """By the first process that asks; those that wait for it take its file, or its word that it cannot be had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    asked, failed = time.time(), path.with_name(f'.{path.name}.failed')
    with _only_one(path):
        if _accepted(info, file, path):
            return
        if failed.is_file() and failed.stat().st_mtime > asked:
            raise DownloadError(failed.read_text(encoding='utf-8'))
        try:
            _fetch(info, file, path, patience, progress)
        except DownloadError as error:
            failed.write_text(str(error), encoding='utf-8')
            raise
        failed.unlink(missing_ok=True)


def _accepted(info: ModelInfo, file: WeightsFile, path: Path) -> bool:
    """Whether the file is there and right. One put there by hand is checked and pinned; a wrong one is set aside."""
    if not path.is_file() or Pins().unchanged(key_of(info, path), path):
        return path.is_file()
    try:
        accept(info, file, path, path)
    except HashMismatchError as error:
        if offline():
            raise
        console.print(f'{error} It is fetched anew.')
        return False
    return True


def _fetch(info: ModelInfo, file: WeightsFile, path: Path, patience: Patience, progress: bool) -> None:
    try:
        if file.parts or file.unpack:
            _assemble(info, file, path, patience, progress)
        else:
            _one(file, path, patience, progress, lambda found: accept(info, file, found, path))
    except DiskFullError:
        raise
    except DownloadError as error:
        raise type(error)(f"'{info.name}' could not be fetched. {error} {by_hand(info, file)}") from error


def _assemble(info: ModelInfo, file: WeightsFile, path: Path, patience: Patience, progress: bool) -> None:
    """Fetch the parts, check their whole, join or unpack them. Pieces that have arrived survive a failure of others."""
    parts = file.parts or (file,)
    pieces, whole = [path.with_name(f'{part.name}.piece') for part in parts], path.with_name(f'{path.name}.whole')
    for part, piece in zip(parts, pieces, strict=True):
        if not piece.is_file():
            _one(part, piece, patience, progress, partial(accept_piece, part, piece))
    try:
        if file.parts:
            check_published(file, hashes(pieces), sum(piece.stat().st_size for piece in pieces))
        unpack(pieces, whole, file.name) if file.unpack else join(pieces, whole)
    except (HashMismatchError, ArchiveError) as error:
        aside = [set_aside(piece, piece, hashes([piece])) for piece in pieces]
        whole.unlink(missing_ok=True)
        raise type(error)(f'{error} {" ".join(aside)}') from error
    accept(info, file, whole, path, archive_checked=True)
    for piece in pieces:
        piece.unlink(missing_ok=True)


def _one(part: Part, path: Path, patience: Patience, progress: bool, use: Callable[[Path], None]) -> None:
    """``use`` the bytes of the first mirror that gives the right ones; the error says what was wrong with each."""
    arrived, problems = path.with_name(f'{path.name}.partial'), []
    for url in part.urls:
        try:
            with _bar(part.name, progress) as report:
                fetch_url(url, arrived, patience, report)
            arrived.with_name(f'{arrived.name}.json').unlink(missing_ok=True)
            use(arrived)
            return
        except DiskFullError:
            raise
        except DownloadError as error:
            problems.append((url, error))
    kind = HashMismatchError if isinstance(problems[-1][1], HashMismatchError) else DownloadError
    raise kind(' '.join(f'{url}: {str(error).rstrip(".")}.' for url, error in problems))


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """One process at a time; the others wait, and say so once."""
    lock = FileLock(path.with_name(f'.{path.name}.lock'))
    try:
        lock.acquire(timeout=5)
    except Timeout:
        console.print(f'Waiting for another process that fetches {path.name} ...')
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _bar(name: str, shown: bool) -> Iterator[Report | None]:
    if not (shown and console.is_terminal):
        yield None
        return
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
