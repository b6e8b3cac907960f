"""When checkpoints are written: after epochs, and inside them by steps or by minutes."""

import time
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmkernel.checks import check_numbers
from mmkernel.engine.clocks import current_step, steps_per_epoch
from mmkernel.engine.closing import best_so_far
from mmkernel.engine.hooks import attempt
from mmkernel.engine.poll import Poll
from mmkernel.registry import HOOKS


@HOOKS.register_module(force=True)
class CheckpointHook(Hook):
    """Save ``epoch_N.pth`` every ``interval`` epochs and after the last one; inside epochs ``epoch_N_step_K.pth``.

    N: epochs done, K: optimizer steps done in the whole run. Old files go only after the new one is safely on disk, so a kill
    at any moment leaves a checkpoint to resume from.

    Args:
        interval: epochs between files.
        max_keep: the last files of this run that stay, of both names together; None: all.
        every_steps: optimizer steps between files inside epochs (at the end of an epoch: ``epoch_N.pth``); None: no such files.
        every_minutes: the same by the clock of process 0, at the first step after about a second over; None: no such files.
        shards: each process writes what it holds of a sharded neck into a folder beside the file, instead of process 0 all of
            it into the file. Both are read by any number of processes.
    """

    priority = 'VERY_LOW'
    writes = ('epoch_<n>.pth',)

    def __init__(
        self,
        interval: int = 1,
        max_keep: int | None = None,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        shards: bool = False,
    ) -> None:
        whole = dict(interval=interval, max_keep=max_keep, every_steps=every_steps)
        check_numbers('CheckpointHook', whole=True, none=True, **whole)
        check_numbers('CheckpointHook', none=True, every_minutes=every_minutes)
        self.shards = shards
        self.interval, self.max_keep, self.every_steps, self.every_minutes = (*whole.values(), every_minutes)

    def before_train(self, runner: Any) -> None:
        self.poll, self.last = Poll('checkpoint'), time.monotonic()
        if (self.every_steps or self.every_minutes) and not hasattr(runner.train_loop, 'batch'):
            raise ValueError(
                f'CheckpointHook saves inside epochs (every_steps, every_minutes), where {type(runner.train_loop).__name__} '
                'cannot go on. Leave both out, or train with EpochBasedTrainLoop.'
            )
        drop_oldest(runner)  # a run that is resumed may have been killed between its last file and this

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if not attempt(runner.optim_wrapper)[0]:
            return  # inside an accumulation window
        late = self.every_minutes is not None and self.poll(self._late)
        due = late or self._steps_due(current_step(runner, batch_idx) + 1)
        if due and batch_idx + 1 < len(runner.train_dataloader):
            self._save(runner)

    def after_train_epoch(self, runner: Any) -> None:
        done = runner.epoch + 1
        due = done == runner.max_epochs or self.every_n_epochs(runner, self.interval)
        if due or self._steps_due(done * steps_per_epoch(runner)):
            self._save(runner)

    def _late(self) -> bool:
        return time.monotonic() - self.last >= 60 * self.every_minutes

    def _steps_due(self, steps: int) -> bool:
        return bool(self.every_steps) and steps % self.every_steps == 0

    def _save(self, runner: Any) -> None:
        save_here(runner)
        self.last = time.monotonic()


def place(runner: Any) -> Path:
    """The file of this moment: ``epoch_N.pth`` after an epoch, ``epoch_N_step_K.pth`` inside one."""
    batch = getattr(runner.train_loop, 'batch', None)
    inside = '' if batch is None else f'_step_{current_step(runner, batch - 1) + 1}'
    return Path(runner.work_dir) / f'epoch_{runner.epoch + (not inside)}{inside}.pth'


def save_here(runner: Any) -> None:
    """Save, then ``drop_oldest``."""
    path = place(runner)
    runner.save_checkpoint(runner.work_dir, path.name)
    best = best_so_far(runner, runner.epoch + 1) if getattr(runner.train_loop, 'batch', None) is None else ''
    runner.logger.info(f'Saved {path.name}{best}.')
    drop_oldest(runner)


def drop_oldest(runner: Any) -> None:
    """Delete what ``max_keep`` of the run's CheckpointHook does not keep."""
    keep = next((hook.max_keep for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if keep is not None and is_main_process():
        runner.folder.drop_oldest(keep)
