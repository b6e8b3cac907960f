"""Where a file of the zoo belongs, and whether what has arrived may stand there."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from mmkernel.hashes import hash_in_name, hashes
from mmkernel.zoo.errors import HashMismatchError
from mmkernel.zoo.metafile import ModelInfo, Part, WeightsFile
from mmkernel.zoo.pins import Pins, check_published, published
from mmkernel.zoo.places import PACKAGE, weights_folder

console = Console(stderr=True, highlight=False)


def path_of(info: ModelInfo, file: WeightsFile) -> Path:
    """Where the file lies once it is there; one unpacked from an archive ends in .pth. Files of the package stay in it."""
    if file.urls and file.urls[0].startswith('package:'):
        return PACKAGE / file.urls[0].removeprefix('package:')
    name = f'{file.name.removesuffix(".tar.gz")}.pth' if file.unpack else file.name
    if file.unpack and hash_in_name(Path(name)):
        name = f'{Path(name).stem}_unpacked.pth'  # the hash is that of the archive
    return weights_folder() / info.name / name


def key_of(info: ModelInfo, path: Path) -> str:
    """The name of a file among the pins."""
    return f'{info.name}/{path.name}'


def by_hand(info: ModelInfo, file: WeightsFile) -> str:
    """What a person can do where this program cannot."""
    sources = [part.urls[0] for part in file.parts or (file,)]
    path = path_of(info, file)
    steps = f'Download {" and ".join(sources)} by hand'
    if file.parts:
        steps += ', join them in this order' + (' (cat ... > all.tar.gz)' if file.unpack else '')
    if file.unpack:
        steps += f', unpack ({file.unpack})'
    return f'{steps} and put the file at {path} (the folder is {weights_folder()}; MMKERNEL_HOME moves it).'


def accept(info: ModelInfo, file: WeightsFile, found: Path, path: Path, archive_checked: bool = False) -> None:
    """Check the bytes of ``found``, move it to ``path`` and pin it; a wrong file is set aside and never used."""
    digests, pins = hashes([found]), Pins()
    how = published(file) if archive_checked or not file.unpack else None
    try:
        if not file.unpack:
            check_published(file, digests, found.stat().st_size)
        pins.path.parent.mkdir(parents=True, exist_ok=True)
        pins.pin(key_of(info, path), digests['sha256'], how or 'first use')
    except HashMismatchError as error:
        raise HashMismatchError(f'{error} {set_aside(found, path, digests)}') from error
    if found != path:
        with open(found, 'rb') as handle:
            os.fsync(handle.fileno())
        os.replace(found, path)  # whole or absent
    if not how:
        console.print(f'{path.name}: no hash is published; pinned on first use, sha256 {digests["sha256"][:16]}...')


def set_aside(found: Path, path: Path, digests: dict[str, str]) -> str:
    """Rename a wrong file so that it is kept and never used; a sentence that says so."""
    aside = path.with_name(f'{path.name}.rejected-{digests["sha256"][:8]}')
    os.replace(found, aside)
    return f'The file was set aside as {aside} and is not used.'


def accept_piece(part: Part, piece: Path, found: Path) -> None:
    """The same for one part of a file, which has no pin of its own."""
    digests = hashes([found])
    try:
        check_published(part, digests, found.stat().st_size)
    except HashMismatchError as error:
        raise HashMismatchError(f'{error} {set_aside(found, piece, digests)}') from error
    os.replace(found, piece)
