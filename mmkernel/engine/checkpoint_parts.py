"""What a checkpoint of a run must be made of; a file of another shape is named before, or where, a part of it is restored."""

import math
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
    for name, kind in dict(state=Mapping, param_groups=list).items():
        part = content['optimizer'].get(name)
        _expect(part is None or isinstance(part, kind), source, f'optimizer.{name}', part, f'a {kind.__name__.lower()}')
    check_meta(content['meta'], source)
    _check_counts(content, content['meta'], source)


def _check_counts(content: Mapping[str, Any], meta: Mapping[str, Any], source: str) -> None:
    """The same of what there is of each process, and of each schedule that the run had."""
    states, own, schedules = content['random_states'], content.get('own_buffers'), content['param_schedulers']
    W = meta.get('world_size', len(states))
    _expect(len(states) == W, source, 'random_states', states, f'a list of {W} (meta.world_size)')
    fine = own is None or (isinstance(own, list) and len(own) == W and all(isinstance(part, Mapping) for part in own))
    _expect(fine, source, 'own_buffers', own, f'a list of {W} mappings (meta.world_size)')
    _expect(
        all(isinstance(part, Mapping) for part in schedules),
        source,
        'param_schedulers',
        schedules,
        'a list of mappings',
    )
    for step in (part['last_step'] for part in schedules if 'last_step' in part):
        _expect(
            type(step) is int and step >= -1, source, 'param_schedulers: last_step', step, 'a whole number from -1 on'
        )
    if 'param_scheduler' in (meta.get('settings') or {}):
        had = meta['settings']['param_scheduler']
        count = len(had) if isinstance(had, (list, tuple)) else int(had is not None)
        _expect(
            len(schedules) == count, source, 'param_schedulers', schedules, f'a list of {count}, as its settings say'
        )


def check_meta(meta: Mapping[str, Any], source: str, needed: tuple[str, ...] = NEEDED) -> None:
    """The same of ``meta`` alone."""
    for name in needed:
        _expect(name in meta, source, f'meta.{name}', None, 'a value')
    for name, least in NUMBERS.items():
        value = meta.get(name, least)
        fine = type(value) is int and least <= value < (2**32 if name == 'seed' else math.inf)
        _expect(fine, source, f'meta.{name}', value, f'a whole number from {least} on')
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
