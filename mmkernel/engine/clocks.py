"""Hooks for momentum targets, queues and frozen layers: when each moves; and the checks of hooks and heads before a run."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.hooks import EMAHook, Hook
from torch import nn

from mmkernel.checks import check_numbers, did_you_mean
from mmkernel.engine.hooks import attempt, unwrap
from mmkernel.engine.learning_rates import prefixes
from mmkernel.models.sharded import shards_of
from mmkernel.registry import HOOKS, accepted_keywords


def steps_per_epoch(runner: Any) -> int:
    """Optimizer steps of an epoch: its accumulation windows, the last of which may be short."""
    return -(-len(runner.train_dataloader) // getattr(runner.optim_wrapper, '_accumulative_counts', 1))


def current_step(runner: Any, batch_idx: int) -> int:
    """The optimizer step that this batch is part of, counted from 0; a resume does not change it."""
    window = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    return runner.epoch * steps_per_epoch(runner) + batch_idx // window


def momentum_at(step: int, total: int, start: float, end: float, schedule: str = 'cosine') -> float:
    """m_k = end - (end - start) (1 + cos(pi k / K)) / 2, k: ``step`` from 0, K: ``total``. Grill et al., NeurIPS 2020."""
    if schedule == 'constant':
        return start
    return end - (end - start) * (math.cos(math.pi * min(step / max(total, 1), 1.0)) + 1) / 2


@HOOKS.register_module()
class MomentumUpdateHook(Hook):
    """After each attempt k of K at an optimizer step, ``model.target.update(m_k, real)`` with ``momentum_at``.

    ``momentum``: the fraction kept at the first step; with 'cosine' it rises to ``end_momentum``, with 'constant' it stays.
    """

    priority = 'NORMAL'
    moves_target = True

    def __init__(self, momentum: float = 0.996, end_momentum: float = 1.0, schedule: str = 'cosine') -> None:
        if schedule not in ('cosine', 'constant'):
            raise ValueError(f"MomentumUpdateHook.schedule is one of 'cosine', 'constant', got {schedule!r}.")
        check_numbers('MomentumUpdateHook', zero=True, most=1.0, momentum=momentum, end_momentum=end_momentum)
        self.momentum, self.end_momentum, self.schedule = momentum, end_momentum, schedule

    def check_model(self, model: nn.Module) -> None:
        target = getattr(model, 'target', None)
        if not hasattr(target, 'update'):
            text = f'model.target is {type(target).__name__}. Leave the hook out, or '
            text += '--cfg-options model.target.type=MomentumTarget.'
            raise ValueError(f'MomentumUpdateHook has nothing to move: {text}')

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        stepped, real = attempt(runner.optim_wrapper)
        if stepped:
            total = runner.max_epochs * steps_per_epoch(runner)
            m = momentum_at(current_step(runner, batch_idx), total, self.momentum, self.end_momentum, self.schedule)
            unwrap(runner.model).target.update(m, real=real)


@HOOKS.register_module()
class QueueHook(Hook):
    """From epoch ``start_epoch`` (counted from 0) on, the head's queue stores rows; once it is full, they are used."""

    enables_queue = True

    def __init__(self, start_epoch: int = 15) -> None:
        check_numbers('QueueHook', whole=True, zero=True, start_epoch=start_epoch)
        self.start_epoch = start_epoch

    def check_model(self, model: nn.Module) -> None:
        if not _queues(model):
            raise ValueError('QueueHook has no queue to start: set model.head.queue_length, or leave the hook out.')

    def before_train_epoch(self, runner: Any) -> None:
        for queue in _queues(unwrap(runner.model)) if runner.epoch >= self.start_epoch else ():
            queue.enable()


@HOOKS.register_module()
class FreezeHook(Hook):
    """No gradient reaches the optimizer for some layers at the beginning of training.

    ``layers``: {'head.prototypes': dict(steps=313), 'backbone.conv1': dict(epochs=2)}: a prefix of parameter names -> how long
    it is frozen, in optimizer steps or epochs; 'all': to the end.
    """

    def __init__(self, layers: Mapping[str, Any]) -> None:
        for name, length in layers.items():
            here = f"FreezeHook.layers['{name}']"
            if isinstance(length, Mapping) and set(length) in ({'steps'}, {'epochs'}):
                check_numbers(here, zero=True, **length)
            elif length != 'all':
                raise ValueError(f"{here} is dict(steps=n), dict(epochs=n) or 'all', got {length!r}.")
        self.layers = dict(layers)

    def before_train(self, runner: Any) -> None:
        if not hasattr(runner.optim_wrapper, 'frozen'):
            text = f"{type(runner.optim_wrapper).__name__} would train them: set optim_wrapper.type='PretrainOptimWrapper'."
            raise ValueError(f'FreezeHook freezes {", ".join(self.layers)}, but {text}')
        self.check_model(unwrap(runner.model))

    def check_model(self, model: nn.Module) -> None:
        names, self.parameters = dict(model.named_parameters()), {}
        for layer in self.layers:
            self.parameters[layer] = [p for n, p in names.items() if f'{n}.'.startswith(f'{layer}.')]
            if not self.parameters[layer]:
                known = sorted({prefix for name in names for prefix in prefixes(name)})
                hint = did_you_mean(layer, known, f'It has {", ".join(known[:8])}, ...', n=3)
                raise ValueError(f"FreezeHook: the model has no parameters under '{layer}'. {hint}")

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        step, epoch = current_step(runner, batch_idx), steps_per_epoch(runner)
        frozen = runner.optim_wrapper.frozen = []
        for layer, length in self.layers.items():
            if length == 'all' or step < length.get('steps', length.get('epochs', 0) * epoch):
                frozen += self.parameters[layer]


def check_clocks(model: nn.Module, hooks: Iterable[Hook], batch: int | None, world_size: int = 1) -> None:
    """ValueError for a momentum target or a queue that no hook moves, a head that ``batch`` does not fit, two hooks that do the
    same, and a ``commit`` of a head or an ``update`` of a target that takes no ``real``.

    ``batch``: rows that a head sees at a time, of all ``world_size`` processes; None or 0 if unknown.
    """
    hooks = list(hooks)
    if any(isinstance(hook, EMAHook) for hook in hooks) and any(shards_of(model)):
        raise ValueError(
            "EMAHook would save one process's part of a sharded neck as its average of all: take it out, or set "
            'model.neck.sharded=False.'
        )
    for part, name in [*((part, 'commit') for part in model.modules()), (getattr(model, 'target', None), 'update')]:
        names, anything = accepted_keywords(getattr(part, name, lambda real: None))
        if 'real' not in names and not anything:
            raise ValueError(
                f'{type(part).__name__}.{name}() is not told whether the step counts. Write {name}({", ".join(["self", *names])}, '
                'real=None): real is a 0-dim bool tensor; change state by mmkernel.models.move(buffer, value, real).'
            )
    add, option = (
        "Add default_hooks=dict(momentum=dict(type='MomentumUpdateHook')):",
        '--cfg-options default_hooks.momentum.type=',
    )
    movers = [type(hook).__name__ for hook in hooks if getattr(hook, 'moves_target', False)]
    if hasattr(getattr(model, 'target', None), 'update') and len(movers) != 1:
        raise ValueError(
            f'model.target is a {type(model.target).__name__}, which exactly one hook must move; there are '
            f'{len(movers)} ({", ".join(movers) or "it would keep its start values forever"}). '
            + (
                'Remove all but one: --cfg-options default_hooks.NAME=None.'
                if movers
                else f'{add} {option}MomentumUpdateHook.'
            )
        )
    if not all(queue.enabled for queue in _queues(model)) and not any(getattr(h, 'enables_queue', 0) for h in hooks):
        hook = "Add default_hooks=dict(queue=dict(type='QueueHook')): --cfg-options default_hooks.queue.type=QueueHook."
        raise ValueError(f'The queue of model.head would never be used. {hook} Or set queue_length=0.')
    for part in model.modules() if batch else ():
        getattr(part, 'check_batch', bool)(batch)
        getattr(part, 'check_local_batch', bool)(batch // world_size)
    for hook in hooks:
        getattr(hook, 'check_model', bool)(model)
    seen: dict[str, str] = {}
    for hook in hooks:  # ``writes`` names its files; without it, a hook of ours may stand there once
        name, own = type(hook).__name__, type(hook).__module__.startswith(('mmkernel.', 'mmengine.'))
        for claim in getattr(hook, 'writes', [f'the work of a {name}'] if own else []):
            if claim in seen:
                raise ValueError(
                    f'Two hooks, {seen[claim]} and {name}, write or do one thing: {claim}. Remove one of them; a hook is changed '
                    'under its own name: default_hooks=dict(name=dict(...)); --cfg-options default_hooks.NAME=None takes one out.'
                )
            seen[claim] = name


def check_last_batch(model: nn.Module, images: int, batch: int, drop_last: bool) -> None:
    """ValueError if the last, shorter batch of an epoch would end the run. ``images``: of one process."""
    last, wrong = 0 if drop_last else images % batch, ''
    for part in model.modules() if last else ():
        try:
            getattr(part, 'check_local_batch', bool)(last)
        except ValueError as error:
            wrong = wrong or f'{type(part).__name__} says: {error}'
    if last == 1 and hasattr(model, 'roots'):
        wrong = wrong or 'an objective compares at least two.'
    if wrong:
        raise ValueError(
            f'The last batch of an epoch has {last} image(s) of each process ({images} images in batches of {batch}), but '
            f'{wrong} Set train_dataloader.drop_last=True, or another batch size.'
        )


def _queues(model: nn.Module) -> list[nn.Module]:
    """Every queue of the head, also inside a sum of heads."""
    head = getattr(model, 'head', None)
    return [part for part in head.modules() if hasattr(part, 'enable')] if isinstance(head, nn.Module) else []
