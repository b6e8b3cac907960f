"""Clocks: hooks say when; what happens lives in the model, the optimizer wrapper and the checkpoint functions."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmkernel.checks import check_numbers
from mmkernel.engine.finite import NonFiniteLossError, all_finite
from mmkernel.engine.launch import seed_everything
from mmkernel.registry import HOOKS


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside DistributedDataParallel, or the model."""
    return model.module if is_model_wrapper(model) else model


@HOOKS.register_module()
class SeedHook(Hook):
    """Before each epoch, seed python, numpy and torch from (seed, epoch, rank): a resumed run draws what a straight one does."""

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Any) -> None:
        seed_everything(runner.seed, runner.epoch, runner.rank)
        if runner.train_dataloader.generator is not None:
            runner.train_dataloader.generator.manual_seed(torch.initial_seed())


@HOOKS.register_module()
class CommitHook(Hook):
    """After each attempt at a step ``model.commit(real)``: heads store what ``loss`` staged (queue rows) where it was real."""

    priority = 'NORMAL'

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        model = unwrap(runner.model)
        if runner.optim_wrapper.stepped and hasattr(model, 'commit'):
            model.commit(real=runner.optim_wrapper.real)


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """End the run at a loss or gradient that is not finite, and say which images it came from.

    From the first such iteration on nothing moves (``PretrainOptimWrapper``); the host looks every ``interval`` iterations
    and at the end of an epoch, before any checkpoint. Every process then writes epoch, iteration, loss, the sample indices
    of its batch and of the one before, seed and last good checkpoint to ``non_finite_rank<r>.json`` beside the log, and all
    raise. The same holds where something fails at a NaN before there is a loss, in the process where that happens.
    """

    writes = ('non_finite_rank<r>.json',)

    priority = 'VERY_HIGH'

    def __init__(self, interval: int = 50) -> None:
        check_numbers('NonFiniteGuardHook', whole=True, interval=interval)
        self.interval = interval
        self.recent: deque[tuple[int, int, list]] = deque(
            maxlen=interval + 1
        )  # those not checked yet, and the one before

    def before_train(self, runner: Any) -> None:
        self.runner = runner
        self.recent.clear()
        self.check = getattr(runner.optim_wrapper, 'check', None)
        if self.check is not None:
            runner.optim_wrapper.on_non_finite[:] = [self.report]
        else:
            runner.logger.warning(
                f'A non-finite loss is not noticed by {type(runner.optim_wrapper).__name__}: set optim_wrapper.type='
                "'PretrainOptimWrapper'."
            )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        batches = (
            data_batch if isinstance(data_batch, list) else [data_batch]
        )  # a virtual batch is a list of micro-batches
        found = [b['sample_index'] for b in batches if isinstance(b, dict) and b.get('sample_index') is not None]
        self.recent.append((runner.iter, runner.epoch, found))

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.check is not None and self.every_n_train_iters(runner, self.interval):
            self.check()

    def after_train_epoch(self, runner: Any) -> None:
        if self.check is not None:
            self.check()

    def report(self, loss: float, iteration: int) -> str:
        runner, found = self.runner, {i: (epoch, indices) for i, epoch, indices in self.recent}
        epoch, now = found.get(iteration, (runner.epoch, []))
        _, before = found.get(iteration - 1, (epoch, []))
        record = dict(epoch=epoch, iteration=iteration, rank=runner.rank, loss=str(loss), sample_index=_flat(now))
        record |= dict(sample_index_before=_flat(before), seed=runner.seed, world_size=runner.world_size)
        good = runner.folder.last_good()
        record |= dict(checkpoint=good and str(good), config=str(Path(runner.work_dir) / 'config.py'))
        file = Path(runner.log_dir) / f'non_finite_rank{runner.rank}.json'
        file.write_text(json.dumps(record) + '\n')
        return f'Epoch {epoch}; the sample indices of the batch are in {file}. {runner.folder.way_back()}'


def refuse_non_finite(runner: Any, checkpoint: dict) -> None:
    """NonFiniteLossError if a tensor of what is about to be written holds NaN or infinity: weights, buffers, optimizer, EMA."""
    parts = {key: value for key, value in checkpoint.items() if key not in ('meta', 'message_hub', 'random_states')}
    for key, part in parts.items():
        bad = [name for name, x in _tensors(part) if not all_finite(x)]
        if bad:
            what = 'weights' if key == 'state_dict' else f"tensors of '{key}'"
            raise NonFiniteLossError(
                f'{len(bad)} {what} hold NaN or infinite values after epoch {runner.epoch + 1} (first: {bad[0]}); '
                f'no checkpoint was written. {runner.folder.way_back()}'
            )


def _tensors(value: Any, name: str = '') -> Iterator[tuple[str, torch.Tensor]]:
    """(dotted name, tensor) of every tensor in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        yield name, value
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    for key, part in items:
        yield from _tensors(part, f'{name}.{key}'.lstrip('.'))


def _flat(indices: list[Any]) -> list[int] | None:
    return [i for each in indices for i in torch.as_tensor(each).flatten().tolist()] or None


@HOOKS.register_module(force=True)
class CheckpointHook(Hook):
    """Save ``epoch_N.pth`` every ``interval`` epochs and after the last one; keep the last ``max_keep`` of this run (None: all).

    Old files go only after the new one is safely on disk, so a kill at any moment leaves a checkpoint to resume from.
    """

    priority = 'VERY_LOW'
    writes = ('epoch_<n>.pth',)

    def __init__(self, interval: int = 1, max_keep: int | None = None) -> None:
        check_numbers('CheckpointHook', whole=True, none=True, interval=interval, max_keep=max_keep)
        self.interval, self.max_keep = interval, max_keep

    def after_train_epoch(self, runner: Any) -> None:
        last = runner.epoch + 1 == runner.max_epochs
        if last or self.every_n_epochs(runner, self.interval):
            name = f'epoch_{runner.epoch + 1}.pth'
            runner.save_checkpoint(runner.work_dir, name)
            runner.logger.info(f'Saved {Path(runner.work_dir) / name}.')
            if is_main_process() and self.max_keep is not None:
                runner.folder.drop_oldest(self.max_keep)
