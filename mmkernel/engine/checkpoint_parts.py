"""What a checkpoint of a run must be made of; a file of another shape is named before, or where, a part of it is restored."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import NoneType
from typing import Any

import torch

from mmkernel.limits import DAMAGED
from mmkernel.zoo.files import CheckpointError

PARTS = dict(
    meta=Mapping, state_dict=Mapping, optimizer=Mapping, param_schedulers=list, message_hub=Mapping, random_states=list
)
NUMBERS = dict(
    epoch=0, batch=0, iter=0, steps_per_epoch=1, seed=0, world_size=1, images=1
)  # of meta: whole, and at least so much
MAPPINGS = ('settings', 'versions')  # of meta
NEEDED = ('epoch', 'seed', 'steps_per_epoch', 'optimizer')  # of meta


def check_parts(content: Mapping[str, Any], source: str) -> None:
    """CheckpointError that names the first part that is missing or of another kind, or a position that is none."""
    for name, kind in PARTS.items():
        _expect(isinstance(content.get(name), kind), source, name, content.get(name), f'a {kind.__name__.lower()}')
    check_meta(content['meta'], source)


def check_meta(meta: Mapping[str, Any], source: str, needed: tuple[str, ...] = NEEDED) -> None:
    """The same of ``meta`` alone."""
    for name in needed:
        _expect(name in meta, source, f'meta.{name}', None, 'a value')
    for name, least in NUMBERS.items():
        value = meta.get(name, least)
        _expect(type(value) is int and value >= least, source, f'meta.{name}', value, f'a whole number from {least} on')
    for name in MAPPINGS:
        _expect(isinstance(meta.get(name), (Mapping, NoneType)), source, f'meta.{name}', meta.get(name), 'a mapping')
    for name in ('run', 'optimizer'):
        _expect(isinstance(meta.get(name), (str, NoneType)), source, f'meta.{name}', meta.get(name), 'a text')
    batch, steps = meta.get('batch', 0), meta.get('steps_per_epoch')
    _expect(steps is None or batch <= steps, source, 'meta.batch', batch, f'at most the {steps} steps of an epoch')


def _expect(fine: bool, source: str, name: str, value: Any, expected: str) -> None:
    if not fine:
        given = 'missing' if value is None else f'{str(value)[:40]!r} ({type(value).__name__})'
        raise CheckpointError(
            f"'{source}' cannot be resumed: {name} is {given}; expected {expected}. Take the checkpoint of another epoch, or "
            'set load_from to start a new run from its weights.'
        )


@contextmanager
def restoring(part: str, source: str) -> Iterator[None]:
    """CheckpointError that names the ``part`` of the checkpoint whose content nothing in this run can take."""
    try:
        yield
    except CheckpointError:
        raise
    except DAMAGED as error:
        said = ' '.join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"'{source}' cannot be resumed: its {part} does not fit this run, or is damaged ({type(error).__name__}: {said}). Set "
            'load_from to start a new run from its weights.'
        ) from error


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """ValueError for a state that the next step could not use: no number, or of as many axes as its parameter but other sizes."""
    for group in optimizer.param_groups:
        for key in ('lr', 'weight_decay', 'momentum'):
            if not isinstance(group.get(key, 0.0), (int, float, torch.Tensor)):
                raise ValueError(f'{key} is {group[key]!r}')
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                fine = value.ndim != parameter.ndim or value.shape == parameter.shape
            else:
                fine = value is None or isinstance(value, (bool, int, float))
            if not fine:
                raise ValueError(f'{key} is {str(value)[:40]!r} for a parameter of shape {tuple(parameter.shape)}')
