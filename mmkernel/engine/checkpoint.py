"""Checkpoints of a run: what they may hold, and which one of a folder to resume from. ``mmkernel.zoo`` reads the files."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmkernel.distributed import world_size
from mmkernel.distributed.shards import Shard, own_part
from mmkernel.engine.checkpoint_parts import check_meta, check_parts, restoring
from mmkernel.engine.sharded_state import take_shards
from mmkernel.models.sharded import shards_of
from mmkernel.zoo.files import CheckpointError, bytes_of, damaged_record, meta_of, read_checkpoint
from mmkernel.zoo.loading import LoadReport, load_file, load_weights
from mmkernel.zoo.tensor_names import weights_of

OF_A_RUN = re.compile(r'epoch_\d+(_step_\d+)?\.pth')
STOPPED = 'non_finite'  # the kind of a file that NonFiniteGuardHook writes, and the first word of its name
ELSEWHERE = 'another folder (--work-dir, of a benchmark --out; in Python cfg.work_dir)'


class RunFolderError(RuntimeError):
    """A work folder that belongs to another run, or that a run is using now."""


class TakenOverError(RunFolderError):
    """A work folder that another run has taken over, as this one gave no sign of life. Nothing in it is this run's any more."""


def to_plain(value: Any, where: str = 'checkpoint') -> Any:
    """The same value of tensors (on the CPU), dicts, lists, tuples, str, int, float, bool, None, bytes.

    numpy arrays become tensors, numpy scalars become Python numbers. TypeError names the path of anything else, which only the
    code that wrote it could read.
    """
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return torch.as_tensor(value.copy() if isinstance(value, np.ndarray) else value.detach()).cpu()
    if value is None or isinstance(value, np.generic):
        return None if value is None else value.item()
    if isinstance(value, Mapping):
        return {key: to_plain(item, f'{where}.{key}') for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [to_plain(item, f'{where}[{i}]') for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    for kind in (bool, int, float, str, bytes):  # bool first: it is an int; subclasses (enums, str types) become plain
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(
        f'{where} is a {type(value).__name__}; a checkpoint holds tensors, numbers, strings, lists and dicts.'
    )


def load_checkpoint(model: nn.Module, path: str | Path, strict: bool = True) -> LoadReport:
    """Load the weights of the file ``path`` into ``model`` and say what matched; see ``load_weights``."""
    content = read_checkpoint(path)
    with restoring('shards', str(path)):
        content = take_shards(content, model, None, path)
    return load_weights(model, weights_of(content), strict, str(path))


def go_on_from(model: nn.Module, content: Mapping, path: str, strict: bool = True) -> LoadReport:
    """The weights of a run that is resumed: of one shape with the model's, as the state of its optimizer is."""
    return load_weights(model, weights_of(content), strict, path, resample=False)


def start_from(model: nn.Module, content: Mapping, path: str, strict: bool = True) -> str:
    """The weights that a run begins with: of the whole model, or of its ``backbone`` where the file has no others of it.

    Positions, patches and filters are made to fit other images (``load_weights``). An encoder may come from any code base
    (``load_file``). The text says what was found, and which parts keep the weights that they were built with.
    """
    state, names = weights_of(content), list(model.state_dict())
    ours = [name.startswith('backbone.') for name in names if name in state]  # of names that the file has as well
    if not hasattr(model, 'backbone') or (any(ours) and not all(ours)):
        return str(load_weights(model, state, strict, path, adapt_input=True))
    report = load_file(model.backbone, path, adapt_input=True, content=content)
    others = [name for name, part in model.named_children() if name not in ('backbone', 'target', 'data_preprocessor')]
    fresh = ', '.join(name for name in others if any(key.startswith(f'{name}.') for key in names))
    return f'its encoder alone, {report}. New: {fresh or "nothing"}'


def checkpoint_meta(path: str | Path) -> dict:
    """What a training checkpoint says of its run; tensors are not read. CheckpointError for a file of weights alone."""
    content = read_checkpoint(path, mmap=True)
    if 'optimizer' not in content or not isinstance(content.get('meta'), dict):
        raise CheckpointError(f"'{path}' holds weights only; set load_from to start a new run from them.")
    if content['meta'].get('kind') == STOPPED:
        raise CheckpointError(
            f"'{path}' is the state before a step that is not finite: 'mmkernel replay' takes it. Resume from an epoch_<n>.pth."
        )
    check_parts(content, str(path))
    return content['meta']


def checkpoint_bytes(model: nn.Module, groups: list[dict]) -> int:
    """About how large a checkpoint will be, before the optimizer has any state: it keeps a value or two for each weight."""
    moments = [len(group['betas']) if 'betas' in group else bool(group.get('momentum')) for group in groups]
    parts = lambda p: world_size() if isinstance(p, Shard) else 1  # noqa: E731  (about one size)
    kept = (n * p.nbytes * parts(p) for n, group in zip(moments, groups, strict=True) for p in group['params'])
    state = {name: own_part(x) for name, x in model.state_dict().items()}
    elsewhere = (world_size() - 1) * bytes_of([state[name] for name, _ in shards_of(model)])
    return bytes_of(state) + elsewhere + sum(kept)


def epoch_files(work_dir: str | Path) -> list[Path]:
    """``epoch_N.pth`` and ``epoch_N_step_K.pth`` of a folder, without exports such as epoch_20_mmdetection.pth."""
    return [path for path in sorted(Path(work_dir).glob('epoch_*.pth')) if OF_A_RUN.fullmatch(path.name)]


def position(meta: Mapping) -> tuple[int, float]:
    """(epochs done, part of the next one) of a checkpoint's ``meta``; files of earlier versions lie at ends of epochs."""
    return int(meta['epoch']), meta.get('batch', 0) / (meta.get('steps_per_epoch') or 1)


def list_checkpoints(work_dir: str | Path) -> list[tuple[Path, dict]]:
    """(file, meta) of every training checkpoint of a folder that opens, the furthest last; a warning names the others.

    Times of files are not used: copies have new ones. ``run`` in the meta tells runs apart; it is None in files of earlier
    versions.
    """
    found = []
    for path in epoch_files(work_dir):
        try:
            meta = meta_of(read_checkpoint(path, mmap=True))
            check_meta(meta, str(path), needed=())
            found.append((path, dict(run=meta.get('run'), position=position(meta))))
        except (CheckpointError, KeyError, TypeError, ValueError) as error:
            error = f'it is not one of a run (its meta has no {error})' if isinstance(error, KeyError) else error
            warnings.warn(f"Skipped the checkpoint '{path}': {error}", stacklevel=1)  # from one place: told once
    return sorted(found, key=lambda item: item[1]['position'])


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The furthest checkpoint of ``work_dir`` that opens and whose checksums are right, None if there is none.

    CheckpointError if several runs have left checkpoints there, except for one case: a run of an earlier version, whose files
    name no run, that this version has resumed.
    """
    found = list_checkpoints(work_dir)
    runs: dict[str | None, list[Path]] = {}
    for path, meta in found:
        runs.setdefault(meta['run'], []).append(path)
    begun = len(runs) == 2 and [path for path, _ in found][: len(runs.get(None, []))] == runs.get(None)
    if len(runs) > 1 and not begun:
        groups = '; '.join(', '.join(path.name for path in files) for files in runs.values())
        text = f"'{work_dir}' holds checkpoints of {len(runs)} runs ({groups})"
        raise CheckpointError(f'{text}: name the file meant (--resume FILE), or give each run a folder of its own.')
    for path, _ in reversed(found):
        if not (damaged := damaged_record(path)):
            return path
        warnings.warn(f"Skipped the checkpoint '{path}': the bytes of '{damaged}' in it have changed.", stacklevel=2)
    return None


def checkpoint_to_resume(folder: Path, file: Path | None, left: list[Path]) -> Path | None:
    """``file`` of ``folder``, or without one the furthest; None in a folder without checkpoints.

    RunFolderError if the run of ``file`` has gone further; CheckpointError if none of those ``left`` there opens.
    """
    if file is None:
        found = latest_checkpoint(folder)
        if found is None and left:
            raise CheckpointError(
                f"--resume: none of the checkpoints in '{folder}' opens as one of a run ({shown(left)}), and a new run would "
                f'overwrite them. Name a file (--resume FILE), or take {ELSEWHERE}.'
            )
        return found
    this = checkpoint_meta(file)
    run, here = this.get('run'), position(this)
    if further := [path for path, meta in list_checkpoints(folder) if meta['run'] == run and meta['position'] > here]:
        raise RunFolderError(
            f"--resume {file.name}: the run in '{folder}' has gone further ({shown(further)}), and would be overwritten. "
            f'Resume without a file to go on from the last, or branch off into {ELSEWHERE}.'
        )
    return file


def shown(files: list[Path]) -> str:
    """The names of files; of more than six, the first three and the last two."""
    names = [file.name for file in files]
    return ', '.join(names if len(names) <= 6 else [*names[:3], '...', *names[-2:]])
