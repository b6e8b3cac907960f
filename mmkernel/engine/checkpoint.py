"""Checkpoints of a run: the newest that opens, and weights into a model. Files and keys are the zoo's (``mmkernel.zoo``)."""

from __future__ import annotations

import warnings
from pathlib import Path

from torch import nn

from mmkernel.zoo.files import CheckpointError, damaged_record, read_checkpoint, write_checkpoint
from mmkernel.zoo.loading import LoadReport, fit_buffers, load_weights, weights_of

__all__ = [
    'CheckpointError', 'LoadReport', 'fit_buffers', 'latest_checkpoint', 'list_checkpoints', 'load_checkpoint',
    'load_weights', 'read_checkpoint', 'weights_of', 'write_checkpoint',
]  # fmt: skip


def list_checkpoints(work_dir: str | Path) -> list[tuple[Path, dict]]:
    """(file, meta) of every training checkpoint of a folder that opens, oldest first; a warning names the others.

    The order is that of the time written inside each file, which survives copying the folder.
    """
    found = []
    for path in sorted(Path(work_dir).glob('epoch_*.pth')):
        try:
            meta = read_checkpoint(path, mmap=True)['meta']
            found.append((path, dict(time=meta['time'], epoch=meta['epoch'], iter=meta['iter'])))
        except (CheckpointError, KeyError, TypeError) as error:
            warnings.warn(f"Skipped the checkpoint '{path}': {error}", stacklevel=2)
    return sorted(found, key=lambda item: (item[1]['time'], item[1]['epoch']))


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest checkpoint of ``work_dir`` that opens and whose checksums are right, None if there is none.

    Pointer files are not trusted.
    """
    for path, _ in reversed(list_checkpoints(work_dir)):
        if not (damaged := damaged_record(path)):
            return path
        warnings.warn(f"Skipped the checkpoint '{path}': the bytes of '{damaged}' in it have changed.", stacklevel=2)
    return None


def load_checkpoint(model: nn.Module, path: str | Path, strict: bool = True) -> LoadReport:
    """Load the weights of the file ``path`` into ``model`` and say what matched; see ``load_weights``."""
    return load_weights(model, weights_of(read_checkpoint(path)), strict, str(path))
