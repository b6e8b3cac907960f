"""From a row of the zoo to a verified file: mirrors in their order, one download for all ranks, whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from filelock import FileLock, Timeout

import mmkernel
from mmkernel.hashes import hashes
from mmkernel.zoo.archives import ArchiveError, join, unpack
from mmkernel.zoo.catalogue import PACKAGE, offline, path_of, weights_folder
from mmkernel.zoo.files import DiskFullError, room_for
from mmkernel.zoo.metafile import MetafileError, ModelInfo, Part, WeightsFile, check_url
from mmkernel.zoo.pins import (
    DownloadError,
    HashMismatchError,
    Pins,
    accept,
    check_published,
    console,
    published,
    set_aside,
)

RETRIES = 3  # of one mirror, after failures that may pass; pooch waits 1, 2, 3, ... seconds
TIMEOUT = 30  # seconds without data
BUSY = (408, 425, 429, 500, 502, 503, 504)
PAGE = (b'<!doctype', b'<html', b'<?xml', b'<head')


def download(info: ModelInfo, holds: str = 'backbone', progress: bool = True) -> Path:
    """The path of the verified file of ``info`` that holds this, fetched if it is not there yet.

    Errors: ValueError if the row has no such file; DownloadError, with what to do by hand, if no mirror gives it;
    HashMismatchError for a file with other bytes than published (or than at its first use); DiskFullError.
    """
    file = info.file(holds)
    if file is None:
        there = ', '.join(dict.fromkeys(file.holds for file in info.files)) or 'no public weights'
        raise ValueError(f"'{info.name}' has no file that holds '{holds}'; there is: {there}.")
    path = path_of(info, file)
    key = f'{info.name}/{path.name}'
    if PACKAGE in path.parents:
        if not path.is_file():
            raise DownloadError(f"'{info.name}' comes with the package, but {path} is missing: install mmkernel again.")
        check_published(file, hashes([path]), path.stat().st_size)
    elif not (path.is_file() and Pins().unchanged(key, path)):
        if offline() and not path.is_file():
            raise DownloadError(
                f"'{info.name}' is not in the cache, and MMKERNEL_OFFLINE forbids to fetch it. {by_hand(file, path)}"
            )
        try:
            _fetch_once(info, file, path, key, progress)
        except PermissionError as error:
            raise DownloadError(
                f'{error.filename or path} cannot be written ({error.strerror}): set MMKERNEL_HOME to a folder of yours.'
            ) from error
    return path


def by_hand(file: WeightsFile, path: Path) -> str:
    """What a person can do where this program cannot."""
    steps = f'Download {" and ".join(part.urls[0] for part in file.parts or (file,))} by hand'
    if file.parts:
        steps += ', join them in this order' + (' (cat ... > all.tar.gz)' if file.unpack else '')
    if file.unpack:
        steps += f', unpack ({file.unpack})'
    return f'{steps} and put the file at {path} (the folder is {weights_folder()}; MMKERNEL_HOME moves it).'


def _fetch_once(info: ModelInfo, file: WeightsFile, path: Path, key: str, progress: bool) -> None:
    """By the first process that asks; those that wait for it take its file, or its word that it cannot be had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    asked, failed = time.time(), path.with_name(f'.{path.name}.failed')
    with _only_one(path):
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
    """Whether the file is there and right. One put there by hand is checked and pinned; a wrong one is set aside."""
    if not path.is_file() or Pins().unchanged(key, path):
        return path.is_file()
    try:
        accept(file, path, path, key)
    except HashMismatchError as error:
        if offline():
            raise
        console.print(f'{error} It is fetched anew.')
        return False
    return True


def _assemble(file: WeightsFile, path: Path, key: str, progress: bool) -> None:
    """Fetch the file, or its parts, check their whole, join or unpack them. Pieces survive a failure of others."""
    if not (file.parts or file.unpack):
        return _from_mirrors(file, path, progress, partial(accept, file, path=path, key=key))
    parts = file.parts or (Part(file.name, file.urls, file.sha256, file.md5, file.size),)
    pieces, whole = [path.with_name(f'{part.name}.piece') for part in parts], path.with_name(f'{path.name}.whole')
    for part, piece in zip(parts, pieces, strict=True):
        if not piece.is_file():
            _from_mirrors(part, piece, progress, partial(accept, part, path=piece))
    try:
        if file.parts:
            check_published(file, hashes(pieces), sum(piece.stat().st_size for piece in pieces))
        unpack(pieces, whole, file.name) if file.unpack else join(pieces, whole)
    except (HashMismatchError, ArchiveError) as error:
        aside = [set_aside(piece, piece, hashes([piece])['sha256']) for piece in pieces]
        whole.unlink(missing_ok=True)
        raise type(error)(f'{error} {" ".join(aside)}') from error
    accept(file, whole, path, key, archive=published(file))
    for piece in pieces:
        piece.unlink(missing_ok=True)


def _from_mirrors(part: Part, path: Path, progress: bool, use: Callable[[Path], None]) -> None:
    """``use`` the bytes of the first mirror that gives the right ones; the error says what was wrong with each."""
    problems = []
    for url in part.urls:
        with tempfile.TemporaryDirectory(prefix='.arriving-', dir=path.parent) as folder:
            try:
                return use(_get(url, Path(folder), part.name, progress))
            except DiskFullError:
                raise
            except DownloadError as error:
                problems.append((url, error))
    kind = HashMismatchError if isinstance(problems[-1][1], HashMismatchError) else DownloadError
    raise kind(' '.join(f'{url}: {str(error).rstrip(".")}.' for url, error in problems))


def _get(url: str, folder: Path, name: str, progress: bool) -> Path:
    """The file of one URL, by pooch; DownloadError if this URL cannot give it, however often it is asked.

    Proxies are those of the environment (https_proxy, no_proxy), certificates those of SSL_CERT_FILE where it is set.
    """
    import pooch  # with requests, a fifth of a second that a list of names need not pay
    import requests

    http = pooch.HTTPDownloader(
        progressbar=progress and sys.stderr.isatty(), chunk_size=1 << 16, timeout=TIMEOUT,
        headers={'User-Agent': f'mmkernel/{mmkernel.__version__}', 'Accept-Encoding': 'identity'},
        hooks=dict(response=partial(_check_answer, folder / name)), verify=os.environ.get('SSL_CERT_FILE') or True,
    )  # fmt: skip

    def fetch(url: str, output: str, pooch: Any) -> None:
        os.unlink(output)  # pooch's own temporary file, which only its owner could read
        http(url, output, pooch)
        _refuse_what_is_no_file(Path(output))

    source = pooch.Pooch(folder, base_url='', registry={name: None}, urls={name: url}, retry_if_failed=RETRIES)
    pooch.get_logger().setLevel('WARNING')
    try:
        with room_for(folder):
            return Path(source.fetch(name, downloader=fetch))
    except requests.HTTPError as error:
        raise DownloadError(
            f'HTTP {error.response.status_code} {error.response.reason} ({1 + RETRIES} attempts)'
        ) from error
    except requests.exceptions.SSLError as error:
        raise DownloadError(f'the certificate is not valid: {error}') from error
    except (requests.exceptions.ChunkedEncodingError, _BrokeOffError) as error:
        raise DownloadError(f'the connection broke off: {error} ({1 + RETRIES} attempts)') from error
    except (requests.RequestException, ValueError) as error:  # the latter: an address that no adapter takes
        raise DownloadError(f'no connection: {error} ({1 + RETRIES} attempts)') from error


def _check_answer(path: Path, response: Any, *_: Any, **__: Any) -> None:
    """Of each answer, redirects too: it must not lead away from https, nor be final and no file, nor too large."""
    if response.is_redirect:
        try:
            check_url(urljoin(response.url, response.headers['location']), f'{response.url} redirects')
        except MetafileError as error:
            raise DownloadError(str(error)) from error
    elif response.status_code >= 400 and response.status_code not in BUSY:
        raise DownloadError(f'HTTP {response.status_code} {response.reason}')  # asking again would not help
    with room_for(path, int(response.headers.get('Content-Length') or 0)):
        return


class _BrokeOffError(ValueError):
    """pooch asks again after a ValueError."""


def _refuse_what_is_no_file(path: Path) -> None:
    """A web page, nothing at all, or a zip (what torch.save writes) without its end, from a server that names no length."""
    with open(path, 'rb') as file:
        head = file.read(512).lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if head.startswith(PAGE):
        raise DownloadError(
            'a web page came in place of weights: a log-in, a quota, or a network that wants a click first'
        )
    if not head or (head.startswith(b'pk') and not zipfile.is_zipfile(path)):
        raise _BrokeOffError(f'{path.stat().st_size} bytes came, of a length that the server does not say')


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
