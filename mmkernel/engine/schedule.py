"""Learning-rate schedules. Ours is a closed form of the step, so a resumed or extended run is on the right curve."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any

from mmengine.hooks import ParamSchedulerHook as _ParamSchedulerHook
from mmengine.optim import _ParamScheduler

from mmkernel.checks import check_numbers
from mmkernel.registry import HOOKS, PARAM_SCHEDULERS

# Flag of a parameter group -> its options that no schedule moves.
FIXED = {'fixed_lr': ('lr',), 'fixed_momentum': ('momentum', 'betas'), 'fixed_weight_decay': ('weight_decay',)}


@contextmanager
def unmoved(optimizer: Any) -> Iterator[None]:
    """Inside, schedules may move every group; afterwards a group with a flag of ``FIXED`` has its options back."""
    groups = optimizer.param_groups if isinstance(optimizer.param_groups, list) else []
    kept = [
        (group, name, group[name])
        for group in groups for flag, names in FIXED.items() if group.get(flag) for name in names if name in group
    ]  # fmt: skip
    yield
    for group, name, value in kept:
        group[name] = value


@HOOKS.register_module(force=True)
class ParamSchedulerHook(_ParamSchedulerHook):
    """mmengine's, which steps the schedules; groups with ``fixed_lr`` and the like stay where they are."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        with unmoved(runner.optim_wrapper):
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner: Any) -> None:
        with unmoved(runner.optim_wrapper):
            super().after_train_epoch(runner)


def build_schedules(given: Any, optimizer: Any, epochs: int, epoch_length: int) -> list[_ParamScheduler]:
    """The schedules of ``param_scheduler``: one or a list of dicts, or built ones. Without ``end`` they end with the run.

    ``epoch_length`` in iterations. ValueError if a schedule with a peak of its own gives groups of different rates the same.
    """
    before, built = {group['lr'] for group in optimizer.param_groups}, []
    with unmoved(optimizer):
        for item in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(item, Mapping):
                item = dict(item)
                kind = PARAM_SCHEDULERS.get(item['type']) if isinstance(item['type'], str) else item['type']
                if getattr(kind, 'per_step', False):
                    item['convert_to_iter_based'] = True
                limit = epochs if item.get('by_epoch', True) else epochs * epoch_length
                item.setdefault('end', limit)
                if late := [m for m in item.get('milestones') or [] if m >= limit]:
                    text = (
                        f'param_scheduler: milestones {late} of {kind.__name__} lie beyond the run (it ends at {limit})'
                    )
                    warnings.warn(f'{text}: they have no effect.', stacklevel=2)
                defaults = dict(optimizer=optimizer, epoch_length=epoch_length)
                item = PARAM_SCHEDULERS.build_func(item, registry=PARAM_SCHEDULERS, default_args=defaults)
            built.append(item)
    starts = {group.get('initial_lr') for group in optimizer.param_groups}
    if len(before) > 1 and len(starts) == 1 and None not in starts:
        raise ValueError(
            f'{", ".join(type(s).__name__ for s in built)} gives all parameter groups one learning rate, but they were given '
            f'{sorted(before)} (paramwise_cfg). Use a schedule that multiplies rates, such as WarmupCosineLR.'
        )
    return built


def state_of(schedule: Any) -> dict:
    """What a checkpoint holds of it: no functions (OneCycleLR has one), which building it makes again."""
    return {key: value for key, value in schedule.state_dict().items() if not callable(value)}


def moved_by(schedules: Iterable[Any]) -> set[str]:
    """The options of parameter groups that they move; of Adam's betas, those of momentum move the first."""
    names = {name for schedule in schedules if (name := getattr(schedule, 'param_name', None))}
    return names | {'betas'} if 'momentum' in names else names


def warmup_end(schedules: Iterable[Any] | None, epoch: Sized) -> int:
    """The iteration at which the last warm-up of the learning rate is over; ``epoch`` has as many items as it has iterations."""
    ends = [0]
    for each in schedules or ():
        rising = getattr(each, 'start_factor', 1.0) < getattr(each, 'end_factor', 0.0)  # mmengine's LinearLR
        if getattr(each, 'param_name', None) == 'lr':
            length = len(epoch) if rising and each.by_epoch else 1
            ends.append(getattr(each, 'warmup_steps', each.end * length if rising else 0))
    return max(ends)


def warmup_cosine(step: int, total: int, warmup: int = 0, end_factor: float = 0.0, start_factor: float = 0.0) -> float:
    """s + (1-s) k/w for k < w, then e + (1-e) (1 + cos(pi (k-w)/(K-w)))/2; k: ``step`` from 0, K: ``total``, w: ``warmup``."""
    if step < warmup:
        return start_factor + (1 - start_factor) * step / warmup
    cosine = 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(total - warmup, 1), 1.0)))
    return cosine + end_factor * (1 - cosine)


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(_ParamScheduler):
    """Linear warm-up and cosine decay of the learning rate, once per iteration k from 0.

    lr_k = peak * ``warmup_cosine`` of step k, ``total_steps`` and ``warmup_steps``. Step 0 has exactly the start factor (0); the
    last step is one short of the end factor. Schedule of the official code of Barlow Twins, VICReg and SFRIK; mmengine's
    LinearLR cannot start at 0.

    In a config: ``param_scheduler=dict(type='WarmupCosineLR', warmup_epochs=10, end_factor=0.001)``; the peak is the
    optimizer's (scaled) learning rate and the length comes from the train loop. Only the position is saved, so a run resumed
    with more epochs follows the longer curve from where it stands. A parameter group with ``fixed_lr=True`` keeps its peak:
    ``optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'predictor': dict(fixed_lr=True)}))``.
    """

    per_step = True  # ``build_schedules`` builds it with build_iter_from_epoch

    def __init__(
        self, optimizer: Any, total_steps: int, warmup_steps: int = 0, end_factor: float = 0.0, start_factor: float = 0.0,
        last_step: int = -1,
    ) -> None:  # fmt: skip
        check_numbers('WarmupCosineLR', whole=True, total_steps=total_steps)
        check_numbers('WarmupCosineLR', whole=True, zero=True, warmup_steps=warmup_steps)
        check_numbers('WarmupCosineLR', zero=True, end_factor=end_factor, start_factor=start_factor)
        if warmup_steps >= total_steps:
            text = f'The warm-up ({warmup_steps} steps) is not shorter than the run ({total_steps} steps)'
            warnings.warn(f'{text}: the learning rate never reaches its peak. Set warmup_epochs.', stacklevel=2)
        self.total_steps, self.warmup_steps = total_steps, warmup_steps
        self.end_factor, self.start_factor = end_factor, start_factor
        super().__init__(optimizer, 'lr', last_step=last_step, by_epoch=False)

    @classmethod
    def build_iter_from_epoch(
        cls, optimizer: Any, end: int, epoch_length: int, warmup_epochs: float = 10, end_factor: float = 0.001,
        start_factor: float = 0.0,
    ) -> 'WarmupCosineLR':  # fmt: skip
        """``end`` epochs of ``epoch_length`` iterations, the first ``warmup_epochs`` of them rising."""
        check_numbers('WarmupCosineLR', zero=True, warmup_epochs=warmup_epochs)
        warmup = round(warmup_epochs * epoch_length)
        return cls(optimizer, int(end) * epoch_length, warmup, end_factor, start_factor)

    def step(self) -> None:
        self.go_to(self.last_step + 1)

    def go_to(self, step: int) -> None:
        """Set the learning rate of ``step`` (the next optimizer step uses it)."""
        self.last_step = self._global_step = step
        with unmoved(self.optimizer):
            for group, value in zip(self.optimizer.param_groups, self._get_value(), strict=True):
                group['lr'] = value
        self._last_value = [group['lr'] for group in self.optimizer.param_groups]

    def _get_value(self) -> list[float]:
        factor = warmup_cosine(self.last_step, self.total_steps, self.warmup_steps, self.end_factor, self.start_factor)
        return [base * factor for base in self.base_values]

    def state_dict(self) -> dict:
        return {'last_step': self.last_step}

    def load_state_dict(self, state_dict: dict) -> None:
        self.go_to(state_dict['last_step'])
