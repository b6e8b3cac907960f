"""Is this the file that was published? Against its published hash, or the hash it had when it was first used."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from mmkernel.zoo.errors import DownloadError
from mmkernel.zoo.metafile import Part
from mmkernel.zoo.places import home

BLOCK = 1 << 20


class HashMismatchError(DownloadError):
    """A file with other bytes than those published, or than those of its first use."""


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """sha256 and md5 of files, one after the other as if they were one."""
    found = dict(sha256=hashlib.sha256(), md5=hashlib.md5(usedforsecurity=False))
    for path in paths:
        with open(path, 'rb') as file:
            while block := file.read(BLOCK):
                for digest in found.values():
                    digest.update(block)
    return {name: digest.hexdigest() for name, digest in found.items()}


def published(part: Part) -> str | None:
    """What is known of the hash: 'sha256', 'sha256 prefix', 'md5', 'md5 prefix', or None."""
    for name, value, length in (('sha256', part.sha256, 64), ('md5', part.md5, 32)):
        if value:
            return name if len(value) == length else f'{name} prefix'
    return None


def check_published(part: Part, found: dict[str, str], size: int | None = None) -> None:
    """HashMismatchError unless hash and size are the published ones, as far as they are known."""
    if part.size is not None and size is not None and part.size != size:
        raise HashMismatchError(f"'{part.name}' has {size} bytes; {part.size} are published.")
    for name in ('sha256', 'md5'):
        wanted = getattr(part, name)
        if wanted and not found[name].startswith(wanted):
            raise HashMismatchError(
                f"'{part.name}' has the {name} {found[name][: len(wanted)]}; {wanted} is published. It was changed on the "
                'way or at its source.'
            )


class Pins:
    """``pins.json`` of the cache folder: hash, size and date of each file when it was first used."""

    def __init__(self) -> None:
        self.path = home() / 'pins.json'

    def read(self) -> dict[str, dict[str, Any]]:
        if not self.path.is_file():
            return {}
        try:
            return json.loads(self.path.read_text(encoding='utf-8'))
        except ValueError as error:
            raise DownloadError(f'{self.path} is damaged ({error}); delete it to pin anew.') from error

    def pin(self, key: str, path: Path, sha256: str, how: str) -> None:
        """Remember the file, or HashMismatchError if another one was remembered under this name."""
        with FileLock(f'{self.path}.lock'):
            pins = self.read()
            old = pins.get(key)
            if old and old['sha256'] != sha256:
                raise HashMismatchError(
                    f"'{key}' has the sha256 {sha256[:8]}; on {old['date']} it had {old['sha256'][:8]}, and none is published. "
                    f'If the change is known to be right, remove the entry from {self.path}.'
                )
            stat = path.stat()
            date = old['date'] if old else time.strftime('%Y-%m-%d')
            pins[key] = dict(sha256=sha256, checked=how, date=date, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
            temporary = self.path.with_suffix('.tmp')
            temporary.write_text(json.dumps(pins, indent=1, sort_keys=True) + '\n', encoding='utf-8')
            os.replace(temporary, self.path)

    def unchanged(self, key: str, path: Path) -> bool:
        """Whether the file is the one pinned, by size and time of change; reading it all is ``verify``'s work."""
        pin, stat = self.read().get(key), path.stat()
        return bool(pin) and (pin['size'], pin['mtime_ns']) == (stat.st_size, stat.st_mtime_ns)
