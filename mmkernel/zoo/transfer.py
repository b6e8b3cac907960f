"""One URL into one partial file: resumed where it broke off, patient with servers that are busy, deaf to web pages."""

from __future__ import annotations

import http.client
import json
import random
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkernel.zoo.connection import OUT_OF_RANGE, TryAgain, request, validator
from mmkernel.zoo.disk import check_room, write
from mmkernel.zoo.errors import MirrorError

CHUNK = 1 << 16
SLOWEST = 1024  # bytes per second, over ``Patience.stall`` seconds: less counts as standing still
PAGE = (b'<!doctype', b'<html', b'<?xml', b'<head')
Report = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Patience:
    """``attempts`` in a row without progress; seconds of the first pause, without data, and of the longest Retry-After."""

    attempts: int = 4
    pause: float = 1.0
    stall: float = 30.0
    longest: float = 300.0


PATIENT = Patience()


def fetch_url(url: str, partial: Path, patience: Patience = PATIENT, report: Report | None = None) -> None:
    """Bring ``partial`` to its full length; MirrorError if this URL cannot, DiskFullError if there is no room."""
    failures = 0
    while True:
        before = _size(partial)
        try:
            return _receive(url, partial, patience, report)
        except TryAgain as problem:
            failures = 1 if _size(partial) > before + SLOWEST else failures + 1
            if failures >= patience.attempts:
                raise MirrorError(f'{problem} ({failures} attempts without progress)') from problem
            if problem.after is not None and problem.after > patience.longest:
                raise MirrorError(f'{problem}, asks to come back in {problem.after:.0f} s') from problem
            pause = patience.pause * 2 ** (failures - 1) * random.uniform(0.5, 1.5)  # ranks must not knock together
            time.sleep(pause if problem.after is None else problem.after)


def _receive(url: str, partial: Path, patience: Patience, report: Report | None) -> None:
    """One request, from where the partial file ends if the server can vouch that the file is still the same."""
    about = partial.with_name(partial.name + '.json')
    known = _known(about)
    start = _size(partial) if known.get('url') == url and known.get('validator') else 0
    if start and start == known.get('total'):  # whole already, but not put in its place
        return
    try:
        opened = request(url, start, known.get('validator'), patience.stall)
    except TryAgain as problem:
        if problem.code == OUT_OF_RANGE:  # the file there is shorter than what we have of it
            partial.unlink(missing_ok=True)
        raise
    with opened as response:
        if start and response.status == 206:
            if not str(response.headers.get('Content-Range', '')).startswith(f'bytes {start}-'):
                partial.unlink()
                raise TryAgain(f'the server sent another range than bytes {start}-')
        else:
            start = 0
        length = response.headers.get('Content-Length')
        total = start + int(length) if length is not None else None
        about.write_text(json.dumps(dict(url=url, validator=validator(response.headers), total=total)))
        check_room(partial, (total or 0) - start)
        _copy(response, partial, start, total, patience, report)
    if total is not None and _size(partial) != total:
        raise TryAgain(f'the connection broke off after {_size(partial)} of {total} bytes')
    _refuse_what_is_no_file(partial)


def _copy(
    response: Any, partial: Path, done: int, total: int | None, patience: Patience, report: Report | None
) -> None:
    """Append what arrives; a connection that stands still, or drips, is given up."""
    with open(partial, 'ab' if done else 'wb') as file:
        since, mark = time.monotonic(), done
        while True:
            try:
                chunk = response.read1(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise TryAgain(
                    f'the connection broke off after {done} bytes: {error or type(error).__name__}'
                ) from error
            if not chunk:
                return
            write(file, chunk, partial)
            done += len(chunk)
            if report:
                report(done, total)
            if time.monotonic() - since > patience.stall:
                if done - mark < SLOWEST * patience.stall:
                    raise TryAgain(f'less than {SLOWEST} bytes a second after {done} bytes')
                since, mark = time.monotonic(), done


def _refuse_what_is_no_file(partial: Path) -> None:
    """A web page, nothing at all, or a zip (what torch.save writes) without its end, from a server that names no length."""
    with open(partial, 'rb') as file:
        head = file.read(512).lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if head.startswith(PAGE):
        partial.unlink()
        raise MirrorError(
            'a web page came in place of weights: a log-in, a quota, or a network that wants a click first'
        )
    if not head or (head.startswith(b'pk') and not zipfile.is_zipfile(partial)):
        size = _size(partial)
        partial.unlink()
        raise TryAgain(f'the connection broke off after {size} bytes, of a length that the server does not say')


def _known(about: Path) -> dict:
    try:
        return json.loads(about.read_text())
    except (OSError, ValueError):
        return {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
