"""Read and write files of weights: nothing in a file is run, and a file is complete or absent."""

import errno
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mmkernel.checks import did_you_mean
from mmkernel.limits import DAMAGED, LimitError, check_zip
from mmkernel.writing import NO_ROOM, replacing, room
from mmkernel.zoo.pickles import NUMBERS, OF_TENSORS, check_content, read_arrays, with_tensors
from mmkernel.zoo.pins import CheckpointError, DownloadError, check_file
from mmkernel.zoo.stand_ins import load_plain, why_not_plain

SUFFIXES = ('.bin', '.ckpt', '.pkl', '.pt', '.pth', '.safetensors', '.tar', '.torch')  # of files of weights


class DiskFullError(DownloadError):
    """The disk has no room for a file."""


@contextmanager
def room_for(path: Path, size: int = 0) -> Iterator[None]:
    """DiskFullError if ``size`` bytes do not fit on the disk of ``path``, or if a write inside the block fills it."""
    needed = f'{size / 1e6:.1f} MB more are needed' if size else 'more is needed'
    try:
        if size > room(path.parent):
            raise OSError(errno.ENOSPC, 'No space left on device')
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise DiskFullError(
            f'the disk of {path.parent} is full: {needed}, {room(path.parent) / 1e6:.1f} MB are free. Make '
            "room ('mmkernel zoo clean' empties the cache) or set MMKERNEL_HOME to a folder on another disk."
        ) from error


def write_checkpoint(checkpoint: dict, path: str | Path, last: Callable[[], None] | None = None) -> None:
    """Write a checkpoint; after a crash the file is complete or absent. ``last()`` may still raise before it takes its name."""
    with replacing(path, bytes_of(checkpoint), last) as temporary, open(temporary, 'wb') as file:
        try:
            torch.save(checkpoint, file)  # a path would come to stand in the file, and would hide why a write failed
        except RuntimeError as error:
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def bytes_of(value: Any) -> int:
    """Bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(bytes_of, parts))


def read_checkpoint(path: str | Path, mmap: bool = False) -> dict:
    """The checkpoint in ``path`` on the CPU, read with ``weights_only=True``; a .pkl of arrays (detectron2's) as tensors.

    CheckpointError if it cannot be read, or if its hash differs from the one in its name (``name-ab12cd34.pth``).
    """
    path = Path(path)
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        there = sorted(each.name for each in folder.glob('*') if each.suffix in SUFFIXES)
        what = f"'{path}' is a folder; expected a file" if path.is_dir() else f"There is no checkpoint '{path}'"
        held = (
            f'The folder holds: {", ".join(there[:8]) or "no file of weights"}.'
            if folder.is_dir()
            else f"There is no folder '{folder}'."
        )
        raise FileNotFoundError(f'{what}. {did_you_mean(path.name, there)} {held}'.replace('  ', ' '))
    check_file(path)
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    if path.suffix == '.pkl' and not zipfile.is_zipfile(path):
        return read_arrays(path)
    try:
        if zipfile.is_zipfile(path):
            check_zip(path)
        checkpoint = with_tensors(load_plain(path, {**NUMBERS, **OF_TENSORS}, mmap))
    except LimitError as error:
        raise CheckpointError(str(error)) from error
    except (pickle.UnpicklingError, *DAMAGED) as error:
        raise CheckpointError(f"'{path}' {why_not_plain(error, path)}") from error
    damaged = None if mmap else damaged_record(path)
    if damaged:
        raise CheckpointError(
            f"'{path}' is damaged: '{damaged}' in it has another checksum than was written. Copy the file again, or take the "
            'checkpoint of another epoch.'
        )
    check_content(checkpoint, path)
    return checkpoint


def meta_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """``checkpoint['meta']``; {} if there is none, or if another program keeps something else under this key."""
    meta = checkpoint.get('meta')
    return meta if isinstance(meta, Mapping) else {}


def damaged_record(path: Path) -> str | None:
    """The first record of a file whose checksum is wrong, None if all are right. The whole file is read.

    ``torch.load`` does not check: it returns other numbers.
    """
    if not zipfile.is_zipfile(path):  # the format of torch < 1.6 has no checksums
        return None
    try:
        check_zip(path)
        with zipfile.ZipFile(path) as file:
            summed = any(record.CRC for record in file.infolist())  # torch.save can be told to leave them out
            return file.testzip() if summed else None
    except DAMAGED as error:  # a header
        return str(error)


def _read_safetensors(path: Path) -> dict:
    """``dict(state_dict=tensors, meta=texts)``: the header's metadata are texts, by the format."""
    try:
        with safe_open(path, framework='pt') as file:
            return dict(state_dict={key: file.get_tensor(key) for key in file.keys()}, meta=file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, *DAMAGED) as error:
        raise CheckpointError(
            f"'{path}' ({path.stat().st_size} bytes) is not a complete safetensors file: {error}"
        ) from error


def write_safetensors(tensors: dict[str, torch.Tensor], path: str | Path, meta: dict[str, str]) -> None:
    """Write published weights; the file is complete or absent, and the same content gives the same bytes.

    ``meta``: texts in the header, which can be read without the tensors: ``safetensors.safe_open(path, 'pt').metadata()``.
    The library writes them in an order that changes from run to run, and with it the hash of the file; here they are sorted.
    """
    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, metadata=meta)
    end = 8 + int.from_bytes(content[:8], 'little')
    header = json.loads(content[8:end])
    header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(',', ':')).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # the tensors begin at a multiple of 8 bytes
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        file.writelines([len(text).to_bytes(8, 'little'), text, memoryview(content)[end:]])
