"""Clocks: hooks say when; what happens lives in the model, the optimizer wrapper and the checkpoint functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop

from mmkernel.engine.checkpoint import latest_checkpoint, list_checkpoints
from mmkernel.engine.optim_wrapper import NonFiniteLossError
from mmkernel.engine.random_state import seed_everything
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
    """After each real optimizer step, ``model.commit()``: heads store what ``loss`` staged (queue rows, labels)."""

    priority = 'NORMAL'

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        model = unwrap(runner.model)
        if runner.optim_wrapper.stepped and hasattr(model, 'commit'):
            model.commit()


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """Say which images a non-finite loss came from, and never let non-finite weights into a checkpoint.

    Writes epoch, iteration, loss and sample indices of the batch to ``non_finite_rank<r>.json`` beside the log and adds
    its place and the last good checkpoint to the error.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        self.runner, self.batch = runner, None
        if hasattr(runner.optim_wrapper, 'on_non_finite'):
            runner.optim_wrapper.on_non_finite[:] = [self.report]

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.batch = data_batch

    def report(self, value: float) -> str:
        batches = (
            self.batch if isinstance(self.batch, list) else [self.batch]
        )  # a virtual batch is a list of micro-batches
        found = [b['sample_index'] for b in batches if isinstance(b, dict) and b.get('sample_index') is not None]
        index = [i for each in found for i in torch.as_tensor(each).flatten().tolist()] or None
        runner = self.runner
        record = dict(epoch=runner.epoch, iteration=runner.iter, rank=runner.rank, loss=str(value), sample_index=index)
        file = Path(runner.log_dir) / f'non_finite_rank{runner.rank}.json'
        file.write_text(json.dumps(record) + '\n')
        good = latest_checkpoint(runner.work_dir)
        rescue = f'The last good checkpoint is {good} (--resume continues from it).' if good else 'No checkpoint yet.'
        return f'Epoch {runner.epoch}; the sample indices of the batch are in {file}. {rescue}'

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        bad = [
            key
            for key, value in checkpoint['state_dict'].items()
            if value.is_floating_point() and not torch.isfinite(value).all()
        ]
        if bad:
            raise NonFiniteLossError(
                f'{len(bad)} weights hold NaN or infinite values after epoch {runner.epoch + 1} (first: {bad[0]}); '
                f'no checkpoint was written. The last good one is {latest_checkpoint(runner.work_dir) or "none yet"}.'
            )


@HOOKS.register_module(force=True)
class CheckpointHook(Hook):
    """Save ``epoch_N.pth`` every ``interval`` epochs and after the last one; keep the newest ``max_keep`` (None: all).

    Old files go only after the new one is safely on disk, so a kill at any moment leaves a checkpoint to resume from.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int = 1, max_keep: int | None = None) -> None:
        if interval < 1 or (max_keep is not None and max_keep < 1):
            raise ValueError(
                f'CheckpointHook got interval={interval}, max_keep={max_keep}; both must be at least 1 '
                '(max_keep=None keeps all).'
            )
        self.interval, self.max_keep = interval, max_keep

    def before_train(self, runner: Any) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                'CheckpointHook saves at the ends of epochs; set train_cfg=dict(by_epoch=True, max_epochs=...).'
            )

    def after_train_epoch(self, runner: Any) -> None:
        last = runner.epoch + 1 == runner.max_epochs
        if last or self.every_n_epochs(runner, self.interval):
            name = f'epoch_{runner.epoch + 1}.pth'
            runner.save_checkpoint(runner.work_dir, name)
            if is_main_process():
                self._remove_old(Path(runner.work_dir), name)

    def _remove_old(self, folder: Path, written: str) -> None:
        if self.max_keep is None:
            return
        old = [path for path, _ in list_checkpoints(folder) if path.name != written]
        for path in old[: max(len(old) - (self.max_keep - 1), 0)]:
            path.unlink(missing_ok=True)
