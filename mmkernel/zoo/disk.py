"""Writing to a disk that may be full."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import IO

from mmkernel.zoo.errors import DiskFullError

FULL = (errno.ENOSPC, errno.EDQUOT)


def write(file: IO[bytes], data: bytes, path: Path) -> None:
    """Write, or DiskFullError."""
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        if error.errno in FULL:
            raise DiskFullError(_no_room(path, len(data))) from error
        raise


def check_room(path: Path, needed: int) -> None:
    """DiskFullError unless ``needed`` more bytes fit on the disk of ``path``."""
    if needed > shutil.disk_usage(path.parent).free:
        raise DiskFullError(_no_room(path, needed))


def _no_room(path: Path, needed: int) -> str:
    free = shutil.disk_usage(path.parent).free
    return (
        f'the disk of {path.parent} is full: {needed / 1e6:.1f} MB more are needed, {free / 1e6:.1f} MB are free. Make room '
        "('mmkernel zoo clean' empties the cache) or set MMKERNEL_HOME to a folder on another disk; the download resumes."
    )
