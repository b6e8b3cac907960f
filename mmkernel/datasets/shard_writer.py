"""Writes the encoded images of a source into tar shards."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image

from mmkernel.writing import replacing


def write_shards(source: Any, folder: str | os.PathLike, per_shard: int = 1000) -> None:
    """Copy ``source.encoded(i)`` of all images, byte for byte, into folder/000000.tar and so on: what ``TarShards`` reads.

    Labels of -1 are left out. Class names go into folder/classes.txt. A shard appears whole or not at all; FileExistsError
    where the folder holds shards already, since those of another copy would be read along with these.
    """
    home = Path(folder).expanduser()
    home.mkdir(parents=True, exist_ok=True)
    if there := sorted(home.glob('*.tar')):
        raise FileExistsError(f"'{home}' holds '{there[0].name}' already: name a new folder, or remove the old shards.")
    for first in range(0, len(source), per_shard):
        path = home / f'{first // per_shard:06d}.tar'
        with replacing(path) as temporary, tarfile.open(temporary, 'w') as tar:
            for i in range(first, min(first + per_shard, len(source))):
                data = source.encoded(i)
                _add(tar, f'{i:09d}.{_ending(data)}', data)
                if source.label(i) >= 0:
                    _add(tar, f'{i:09d}.cls', b'%d' % source.label(i))
    if len(source.classes):
        (home / 'classes.txt').write_text('\n'.join(source.classes) + '\n', encoding='utf-8')


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _ending(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return dict(JPEG='jpg', TIFF='tif').get(image.format, str(image.format).lower())
    except OSError:
        return 'jpg'  # it cannot be decoded: ``TarShards`` says so when it is read
