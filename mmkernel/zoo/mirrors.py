"""Download one file with pooch, from the first mirror that delivers it complete and correct."""

import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import mmkernel
from mmkernel.zoo.files import DiskFullError, room_for
from mmkernel.zoo.metafile import MetafileError, Part, check_url
from mmkernel.zoo.pins import DownloadError, HashMismatchError

RETRIES = 3  # of one mirror, after temporary failures; pooch waits 1, 2, 3, ... seconds
TIMEOUT = 30  # seconds without data
BUSY = (408, 425, 429, 500, 502, 503, 504)
PAGE = (b'<!doctype', b'<html', b'<?xml', b'<head')


def from_mirrors(part: Part, path: Path, progress: bool, use: Callable[[Path], None]) -> None:
    """Call ``use`` with the file of each mirror until it accepts one; otherwise an error says what was wrong with each."""
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
    """The file of one URL; DownloadError if all attempts fail.

    Proxies come from the environment (https_proxy, no_proxy), certificates from SSL_CERT_FILE if it is set.
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
        _check_file(Path(output))

    source = pooch.Pooch(folder, base_url='', registry={name: None}, urls={name: url}, retry_if_failed=RETRIES)
    pooch.get_logger().setLevel('WARNING')
    try:
        with room_for(folder):
            return Path(source.fetch(name, downloader=fetch))
    except requests.HTTPError as error:
        said = f'HTTP {error.response.status_code} {error.response.reason}'
        raise DownloadError(f'{said} ({1 + RETRIES} attempts)') from error
    except requests.exceptions.SSLError as error:
        raise DownloadError(f'the certificate is not valid: {error}') from error
    except (requests.exceptions.ChunkedEncodingError, _BrokeOffError) as error:
        raise DownloadError(f'the connection broke off: {error} ({1 + RETRIES} attempts)') from error
    except (requests.RequestException, ValueError) as error:  # the latter: an address that no adapter takes
        raise DownloadError(f'no connection: {error} ({1 + RETRIES} attempts)') from error


def _check_answer(path: Path, response: Any, *_: Any, **__: Any) -> None:
    """Check each response, redirects included: https only, no final error status, and room for the file on the disk."""
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
    """An incomplete download. It is a ValueError, after which pooch tries again."""


def _check_file(path: Path) -> None:
    """Refuse a web page, an empty file, and a zip (torch.save writes these) without its end, if the server gave no length."""
    with open(path, 'rb') as file:
        head = file.read(512).lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if head.startswith(PAGE):
        raise DownloadError(
            'a web page came in place of weights: a log-in, a quota, a network that wants a click first'
        )
    if not head or (head.startswith(b'pk') and not zipfile.is_zipfile(path)):
        raise _BrokeOffError(f'{path.stat().st_size} bytes came, of a length that the server does not say')
