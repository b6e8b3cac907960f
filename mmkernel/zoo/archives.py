"""The one file of weights inside an archive, whose bytes may come in several parts."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mmkernel.zoo.files import room_for
from mmkernel.zoo.pins import DownloadError

WEIGHTS = ('.pth', '.pt', '.tar', '.pkl', '.bin', '.safetensors', '.ckpt')
BLOCK = 1 << 20


class ArchiveError(DownloadError):
    """An archive that is damaged, or holds what an archive of weights has no reason to hold."""


class Joined(io.RawIOBase):
    """Files read one after the other as if they were one, so that the whole need not be written once more."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._rest = list(paths)
        self._file = open(self._rest.pop(0), 'rb')

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not (count := self._file.readinto(buffer)) and self._rest:
            self._file.close()
            self._file = open(self._rest.pop(0), 'rb')
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def join(paths: Sequence[Path], target: Path) -> None:
    """The bytes of ``paths`` in order."""
    size = sum(path.stat().st_size for path in paths)
    with Joined(paths) as source, room_for(target, size), open(target, 'wb') as file:
        shutil.copyfileobj(source, file, BLOCK)


def unpack(paths: Sequence[Path], target: Path, name: str) -> None:
    """The only file of weights in the gzipped tar whose bytes are ``paths``, written to ``target``.

    Nothing is ever written under a name from the archive. ArchiveError for a member with a path outside the archive's own
    folder, a link, a device, no weights or several.
    """
    found = None
    try:
        with Joined(paths) as raw, tarfile.open(fileobj=io.BufferedReader(raw, BLOCK), mode='r|gz') as archive:
            for member in archive:
                _refuse(member, name)
                if member.isfile() and PurePosixPath(member.name).suffix in WEIGHTS:
                    if found:
                        raise ArchiveError(f"'{name}' holds several files of weights: {found}, {member.name}.")
                    found = member.name
                    with room_for(target, member.size), open(target, 'wb') as file:
                        shutil.copyfileobj(archive.extractfile(member), file, BLOCK)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArchiveError(f"'{name}' is no whole .tar.gz: {error}. Were its parts joined in their order?") from error
    if not found:
        raise ArchiveError(f"'{name}' holds no file that ends in {', '.join(WEIGHTS)}.")


def _refuse(member: tarfile.TarInfo, name: str) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or '..' in path.parts or '\\' in member.name or ':' in path.parts[0]:
        raise ArchiveError(
            f"'{name}' has a member outside its folder, {member.name!r}: it is not used, and not unpacked."
        )
    if not (member.isfile() or member.isdir()):
        raise ArchiveError(
            f"'{name}' has a link or a device, {member.name!r}: an archive of weights has no need of them."
        )
