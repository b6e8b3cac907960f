"""Files appear whole or not at all; nobody's temporary file is touched by another; a place is tried before the work."""

import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmkernel import owner

try:
    from resource import RLIM_INFINITY, RLIMIT_FSIZE, getrlimit
except ImportError:  # not on Windows
    getrlimit = None

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_numbers = itertools.count()


class NotWrittenError(OSError):
    """A file or folder that cannot be written; the message is for a person."""


def temporary_name(path: Path, end: str = '.tmp') -> Path:
    """``.NAME.<owner>_<n>.tmp`` beside ``path``: no other process and no other thread takes this name."""
    return path.with_name(f'.{path.name[:120]}.{owner.tag()}_{next(_numbers)}{end}')


def owner_of(path: Path) -> str | None:
    """The tag of the process whose temporary file this is; None for another file."""
    found = [owner.TAG.fullmatch(word) for word in path.name.replace('_', '.').split('.')]
    return next((match[0] for match in found if match), None) if path.name.startswith('.') else None


def drop_leftovers(folder: Path, pattern: str, gone: Callable[[str], bool | None] = owner.gone) -> None:
    """Delete the temporary files ``.<pattern>.<owner>_<n>*`` whose owner has ended. Those of other machines stay."""
    for path in folder.glob(f'.{pattern}.*_*'):
        if (tag := owner_of(path)) and gone(tag):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path, needed: int = 0, last: Callable[[], None] | None = None) -> Iterator[Path]:
    """A temporary file in the same folder that is synced and renamed to ``path`` at the end, so ``path`` is complete or absent.

    ``last()`` may still raise before ``path`` is replaced. NotWrittenError where the disk is full, with the bytes that are
    ``needed`` (0: unknown), written and free; the temporary file is gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        with open(temporary, 'rb') as file:
            os.fsync(file.fileno())
        if last:
            last()
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        temporary.unlink(missing_ok=True)  # its room is free again
        raise NotWrittenError(error.errno, _no_room(error, path, needed)) from error
    finally:
        with suppress(OSError):  # of a disk that is away or read-only by now; the error above counts
            temporary.unlink(missing_ok=True)
    if os.name == 'posix':  # the name is on the disk as well
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _no_room(error: OSError, path: Path, needed: int) -> str:
    need = f'about {size(needed)} are needed' if needed else 'more is needed'
    return f"{error.strerror}: '{path}' is not written, {need}, {size(room(path.parent))} can be written"


def size(count: float) -> str:
    return f'{count / 1e6:,.1f} MB'


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = path.rglob('*') if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def room(folder: Path) -> int:
    """Bytes that one file in ``folder`` may have: what is free there, or what a limit of this process leaves (ulimit -f)."""
    free = shutil.disk_usage(folder).free
    limit = getrlimit(RLIMIT_FSIZE)[0] if getrlimit else -1
    return free if limit in (-1, getrlimit and RLIM_INFINITY) else min(free, limit)


def probe(folder: str | Path) -> os.stat_result:
    """Write a small file into ``folder`` and delete it; OSError if that fails. Its times are those of the file system's clock.

    Permission bits do not tell: root has all of them on a read-only disk, and quotas and access lists are elsewhere.
    """
    path = temporary_name(Path(folder) / 'trial')
    try:
        with path.open('xb') as file:
            file.write(b'mmkernel' * 512)
            file.flush()
            os.fsync(file.fileno())
            return os.fstat(file.fileno())
    finally:
        path.unlink(missing_ok=True)


def writable(path: str | Path, example: str | None = 'results/knn.json') -> Path:
    """``path``, its folder made and tried; NotWrittenError if no file can be written there. Call it before hours of work.

    ``example``: of such a file; None where ``path`` may be a folder.
    """
    path = Path(path)
    try:
        if example and (path.is_dir() or path.name in ('', '..')):
            raise IsADirectoryError(errno.EISDIR, 'it is a folder')
        try_folder(path.parent)
    except OSError as error:
        text = f"'{path}' cannot be written ({error.strerror})." + (f' Expected a file: {example}.' if example else '')
        raise NotWrittenError(text) from error
    return path


def try_folder(folder: Path) -> None:
    """Make ``folder`` and write into it; OSError if that fails, and then no folder is left that was not there."""
    missing = [here for here in (folder, *folder.parents) if not here.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe(folder)
    except OSError:
        for made in missing:
            with suppress(OSError):  # it was not made, or another process has put something into it
                made.rmdir()
        raise


def set_aside(path: Path) -> Path:
    """Rename a file or folder to the first free of NAME.old, NAME.old2, ..., so that no earlier result is lost."""
    for n in itertools.count(1):
        name = path.with_name(f'{path.name}.old{n if n > 1 else ""}')
        if name.exists() or name.is_symlink():
            continue
        try:
            os.link(path, name, follow_symlinks=False)  # fails if another process was faster: a rename would replace
        except FileExistsError:
            continue
        except OSError:  # a folder, or a file system without links
            return path.rename(name)
        path.unlink()
        return name
