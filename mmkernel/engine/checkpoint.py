"""Checkpoints that cannot run code, cannot be half written, and never load silently into the wrong model."""

from __future__ import annotations

import os
import pickle
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PREFIXES = ('module.', '_orig_mod.')  # of DistributedDataParallel and torch.compile


class CheckpointError(RuntimeError):
    """A file that is no checkpoint, is damaged, or belongs to another architecture."""


def write_checkpoint(checkpoint: dict, path: str | Path) -> None:
    """Write to a temporary file of the same folder, sync, rename, sync the folder: ``path`` is whole or absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob('.*.pth.tmp'):  # of runs that were killed while they wrote
        stale.unlink(missing_ok=True)
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        with open(temporary, 'wb') as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == 'posix':
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_checkpoint(path: str | Path, mmap: bool = False) -> dict:
    """The checkpoint in ``path`` on the CPU, read with ``weights_only=True``; CheckpointError if it is not readable."""
    path = Path(path)
    if not path.is_file():
        there = ', '.join(sorted(p.name for p in path.parent.glob('*.pth'))[:8]) if path.parent.is_dir() else ''
        raise FileNotFoundError(f"There is no checkpoint '{path}'. The folder holds: {there or 'no .pth file'}.")
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"'{path}' is not a checkpoint of plain tensors and values, or is damaged: {str(error).splitlines()[0]} "
            'Files of other programs that pickle classes are not loaded, because loading one can run code.'
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        size = path.stat().st_size
        raise CheckpointError(f"'{path}' ({size} bytes) is damaged or not a checkpoint: {error}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"'{path}' holds a {type(checkpoint).__name__}; expected a dict of weights.")
    return checkpoint


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
    """The newest checkpoint of ``work_dir`` that opens, None if there is none. Pointer files are not trusted."""
    found = list_checkpoints(work_dir)
    return found[-1][0] if found else None


@dataclass
class LoadReport:
    """Which keys of a checkpoint met which keys of a model."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # in the model only
    unexpected: list[str] = field(default_factory=list)  # in the file only
    mismatched: list[str] = field(default_factory=list)  # in both, of different shapes

    @property
    def exact(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f'{len(self.matched)} keys match']
        for name in ('missing', 'unexpected', 'mismatched'):
            keys = getattr(self, name)
            if keys:
                more = f', ... ({len(keys) - 6} more)' if len(keys) > 6 else ''
                lines.append(f'{len(keys)} {name}: {", ".join(keys[:6])}{more}')
        return '; '.join(lines)


def weights_of(checkpoint: dict) -> dict[str, Tensor]:
    """The state dict in a checkpoint (or the checkpoint itself, if it is one), without wrappers' prefixes."""
    state = checkpoint.get('state_dict', checkpoint)
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    return state


def load_weights(
    model: nn.Module, state: dict[str, Any], strict: bool = True, source: str = 'state dict'
) -> LoadReport:
    """Copy ``state`` into ``model``; CheckpointError with the whole report unless every key fits.

    ``strict=False`` loads what fits and warns about the rest, but still refuses a file of which nothing fits.
    """
    fit_buffers(model, state)
    own, report = model.state_dict(), LoadReport()
    for key, value in own.items():
        if key not in state:
            report.missing.append(key)
        elif getattr(state[key], 'shape', None) != value.shape:
            given = tuple(getattr(state[key], 'shape', ()))
            report.mismatched.append(f'{key} (file {given}, model {tuple(value.shape)})')
        else:
            report.matched.append(key)
    if hasattr(model, 'really_missing'):
        report.missing = model.really_missing(report.missing)
    report.unexpected = [key for key in state if key not in own]
    if not report.matched or (strict and not report.exact):
        raise CheckpointError(
            f"'{source}' is a checkpoint of another architecture: {report}. "
            'Use the config that it was trained with, or strict=False to load the keys that match.'
        )
    if not report.exact:
        warnings.warn(f"'{source}' fits only in part: {report}.", stacklevel=2)
    model.load_state_dict({key: state[key] for key in report.matched}, strict=False)
    return report


def fit_buffers(model: nn.Module, state: dict[str, Any]) -> None:
    """Let modules with buffers as large as the data set (labels of images) take their size from the file."""
    for name, module in model.named_modules():
        if hasattr(module, 'fit_buffers'):
            prefix = f'{name}.' if name else ''
            module.fit_buffers({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})


def load_checkpoint(model: nn.Module, path: str | Path, strict: bool = True) -> LoadReport:
    """Load the weights of the file ``path`` into ``model`` and say what matched; see ``load_weights``."""
    return load_weights(model, weights_of(read_checkpoint(path)), strict, str(path))
