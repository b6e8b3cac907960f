"""What ranks hold as shards, in a checkpoint: whole, gathered to process 0, or written and read by each rank that holds it.

Both forms may be read by any number of processes. Whole, process 0 needs room on its host for all of the layer and of what
the optimizer keeps of it, and its device for one rank's part more. Apart, no rank needs more than its own: the tensors
are in a folder beside ``epoch_N.pth``, by torch.distributed.checkpoint in the safetensors format, which holds nothing to be run.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from mmkernel import owner
from mmkernel.checks import NonFiniteLossError
from mmkernel.distributed import bounds_over_ranks, on_first_process, world_size
from mmkernel.distributed.shards import is_spread, own_part, share_of, whole_on_first
from mmkernel.engine.hooks import unwrap
from mmkernel.models.sharded import shards_of
from mmkernel.writing import NotWrittenError
from mmkernel.zoo.files import CheckpointError, read_checkpoint
from mmkernel.zoo.shard_files import read_shards

# where a tensor stands: dict and key; its name in all of the checkpoint; rows of the whole
Entry = tuple[dict, Any, str, int]
_LOOSE = 'loose'  # a file in a folder of shards while its checkpoint is written or goes: a kill may part them


def entries(model: nn.Module, optimizer: Any, checkpoint: dict) -> Iterator[Entry]:
    """Every tensor of ``checkpoint`` of which this process holds, or will hold, a shard. ``optimizer``: or its wrapper, or None.

    Whole weights of an encoder under ``fsdp`` are not among them: ``load_weights`` takes its rows of them.
    """
    weights, sizes = checkpoint.get('state_dict', checkpoint), dict(shards_of(model))
    own = dict(model.named_parameters())
    for name, q in sizes.items():
        if name in weights and is_spread(weights[name]) == is_spread(own.get(name)):
            yield weights, name, f'state_dict/{name}', q
    rows = {id(p): sizes[name] for name, p in own.items() if name in sizes}
    rows |= getattr(getattr(optimizer, 'parts', None), 'rows', {})
    parameters = [p for group in getattr(optimizer, 'param_groups', ()) for p in group['params']]
    for i, state in checkpoint.get('optimizer', {}).get('state', {}).items() if parameters else ():
        if i < len(parameters) and id(parameters[i]) in rows:
            names = [name for name, x in state.items() if isinstance(x, Tensor) and x.ndim > 0]
            yield from ((state, name, f'optimizer/{i}/{name}', rows[id(parameters[i])]) for name in names)


def states_with_shards(runner: Any, path: Path) -> dict[str, Any]:
    """For the checkpoint ``path``: the states of model and optimizer; {} where there are no shards. All processes call it.

    Shards are whole in process 0; or, as ``CheckpointHook.shards`` asks, in a new folder beside ``path``, and of no rows here.
    """
    model, wrapper = unwrap(runner.model), runner.optim_wrapper
    if world_size() == 1 or not any(shards_of(model)):
        return {}
    saved = wrapper.state_dict()
    saved['state'] = {i: dict(state) for i, state in saved['state'].items()}  # the optimizer's own dicts stay
    found = dict(state_dict=model.state_dict(), optimizer=saved)
    places = list(entries(model, wrapper, found))
    if not any(getattr(hook, 'shards', False) for hook in runner.hooks):
        for where, key, _, q in places:
            where[key] = whole_on_first(own_part(where[key]), q)
        return found
    spoilt = [label for where, key, label, _ in places if not torch.isfinite(own_part(where[key])).all()]
    if bounds_over_ranks(len(spoilt))[0][1]:
        raise NonFiniteLossError(
            f'Shards of a process hold NaN or infinite values ({", ".join(spoilt) or "not in this one"}); {path} was not written.'
        )
    name = f'{path.stem}.{uuid.uuid4().hex[:8]}.shards'
    folder, half = on_first_process(lambda: (path.with_name(name), _half(path.with_name(name))))
    tensors = {label: _of_all(own_part(where[key]), q) for where, key, label, q in places}
    try:
        dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(half), save_distributed=True))
    except CheckpointException as error:  # in every process; it is a BaseException
        on_first_process(lambda: shutil.rmtree(half, ignore_errors=True))
        who, (why, _) = min(error.failures.items())
        text = f"The shards of '{path}' cannot be written (process {who}: {why}). {runner.folder.way_back()}"
        raise NotWrittenError(text) from error
    for where, key, *_ in places:
        where[key] = own_part(where[key]).new_empty(0, *where[key].shape[1:])
    return {**found, 'shards': dict(folder=folder.name, rows={label: q for *_, label, q in places})}


def _half(folder: Path) -> Path:
    """The name of a folder of shards until its checkpoint is written; it holds that of process 0, which alone may ask."""
    return folder.with_name(f'.{folder.name}.{owner.tag()}_0.tmp')


@contextmanager
def naming_shards(path: Path, states: dict, check: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """While process 0 writes the file ``path``: what it calls last, ``check`` and the folder's name; without that the shards go."""
    folder = path.with_name(states['shards']['folder']) if 'shards' in states else None

    def last() -> None:
        check()
        if folder:
            (_half(folder) / _LOOSE).touch()
            _half(folder).rename(folder)

    try:
        yield last
        if folder:
            (folder / _LOOSE).unlink(missing_ok=True)
    finally:
        if folder:
            shutil.rmtree(_half(folder), ignore_errors=True)
            if (folder / _LOOSE).exists():
                _settle(folder, path)


def _of_all(own: Tensor, q: int) -> Tensor:
    """This rank's rows as those of a tensor of q, as torch.distributed.checkpoint takes them."""
    own = own.detach().contiguous()
    if world_size() == 1:
        return own
    mesh, shape = init_device_mesh(own.device.type, (world_size(),)), torch.Size([q, *own.shape[1:]])
    stride = torch.empty(shape, device='meta').stride()
    return DTensor.from_local(own, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)


def take_shards(checkpoint: dict, model: nn.Module, optimizer: Any, path: str | Path) -> dict:
    """``checkpoint``, read from ``path``, with those rows of each tensor that this process holds. All processes call it.

    CheckpointError where the shards of the file are not beside it, or are damaged.
    """
    rows = checkpoint.get('shards', {}).get('rows', {})
    own = {label for *_, label, _ in entries(model, optimizer, checkpoint)}
    if rows:
        device = next(model.parameters()).device
        places = {label: _place(checkpoint, label) for label in rows}
        tensors = {}
        for label, (where, key) in places.items():
            share = share_of(rows[label], some=False) if label in own else slice(0, rows[label])
            own_rows = where[key].new_empty(share.stop - share.start, *where[key].shape[1:], device=device)
            tensors[label] = _of_all(own_rows, rows[label]) if label in own else own_rows
        read_shards(checkpoint, path, tensors, alone=world_size() == 1)
        for label, (where, key) in places.items():
            where[key] = tensors[label].to_local() if isinstance(tensors[label], DTensor) else tensors[label]
    else:
        for where, key, _, q in entries(model, optimizer, checkpoint):
            if len(where[key]) == q:
                where[key] = where[key][share_of(q, some=False)]
    return checkpoint


def _place(checkpoint: dict, label: str) -> tuple[dict, Any]:
    kind, name = label.split('/', 1)
    if kind == 'state_dict':
        return checkpoint[kind], name
    i, name = name.split('/')
    return checkpoint[kind]['state'][int(i)], name


@contextmanager
def shards_go(path: Path) -> Iterator[None]:
    """Delete the folder of shards that belongs to the file ``path`` now, once that is deleted or replaced."""
    beside = any(path.parent.glob(f'{path.stem}.*.shards'))
    old = read_checkpoint(path, mmap=True).get('shards') if beside and path.is_file() else None
    folder = path.with_name(old['folder']) if old else None
    if folder and folder.is_dir():
        with suppress(OSError):  # a full disk has no room for a mark
            (folder / _LOOSE).touch()
    try:
        yield
    finally:
        if folder:
            _settle(folder, path)


def drop_loose_shards(folder: Path) -> None:
    """Delete the folders of shards whose checkpoint a kill left unwritten, replaced or deleted. No other one is touched."""
    for mark in folder.glob(f'epoch_*.shards/{_LOOSE}'):
        _settle(mark.parent, folder / f'{mark.parent.name.rsplit(".", 2)[0]}.pth')


def _settle(folder: Path, path: Path) -> None:
    """Of a folder of shards that was loose: the mark goes where the file ``path`` names it, and all of it where that does not."""
    with suppress(CheckpointError):  # then nobody knows, and it stays
        named = read_checkpoint(path, mmap=True).get('shards') if path.is_file() else None
        if named and named['folder'] == folder.name:
            (folder / _LOOSE).unlink(missing_ok=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
