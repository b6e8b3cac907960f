"""Speaks up while a run can still be saved."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.datasets import PatchView
from mmkernel.distributed import on_first_process
from mmkernel.engine.cluster_hook import dataset_of
from mmkernel.engine.hooks import unwrap
from mmkernel.evaluation import COLLAPSED, YARDSTICK, cloud_statistics, judge, run_kernel
from mmkernel.registry import HOOKS


@HOOKS.register_module()
class DoctorHook(Hook):
    """A warning in the log when the embedding of the last training images collapses, once per change.

    Every ``interval`` epochs from the fraction ``begin`` of the run on (every fresh encoder is nearly collapsed), two views
    of the last ``images`` or more images go through ``model.extract``: in eval mode, without gradient or random draws, so
    training is not touched. Process 0 looks at its own images. ``mmkernel diagnose`` says the same, and more, of a
    checkpoint. Patches of images are not looked at: their embeddings are not those of images.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 5, begin: float = 0.25, images: int = 128) -> None:
        check_numbers('DoctorHook', whole=True, interval=interval)
        check_numbers('DoctorHook', whole=True, least=8, images=images)
        check_numbers('DoctorHook', zero=True, most=1.0, begin=begin)  # a fraction of the run
        self.interval, self.begin, self.images = interval, begin, images
        self.state: str | None = None
        self.recent: deque = deque()

    def before_train_epoch(self, runner: Any) -> None:
        """What to keep of each batch: nothing in an epoch that is not looked at."""
        self.recent.clear()
        epoch, model, views = runner.epoch + 1, unwrap(runner.model), getattr(dataset_of(runner), 'views', None)
        due = epoch % self.interval == 0 or epoch == runner.max_epochs
        shown = hasattr(model, 'extract') and getattr(model, 'neck', None) is not None
        images = bool(views) and not isinstance(next(iter(views.values())), PatchView)
        self.looking = due and epoch > self.begin * runner.max_epochs and shown and images

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.looking and is_main_process():
            views = data_batch['inputs'][:2]
            self.recent.append(views if len(views) == 2 and views[0].shape == views[1].shape else views[:1])
            while sum(len(kept[0]) for kept in self.recent) - len(self.recent[0][0]) >= self.images:
                self.recent.popleft()

    def after_train_epoch(self, runner: Any) -> None:
        if self.looking:
            on_first_process(lambda: self._look(runner))

    def _look(self, runner: Any) -> None:
        if not self.recent:
            return
        model = unwrap(runner.model)
        views = [self._embed(model, v) for v in range(len(self.recent[0]))]
        self.recent.clear()
        if min(views[0].shape) < 2 or not all(torch.isfinite(view).all() for view in views):
            return  # no cloud; or the guard of non-finite losses speaks of it
        pair = tuple(views) if len(views) == 2 else None
        found = judge(cloud_statistics(views[0], run_kernel(model) or YARDSTICK, pair), model)
        if found.state == COLLAPSED and self.state != COLLAPSED:
            runner.logger.warning(f'Epoch {runner.epoch + 1}: the embedding has collapsed: {found.verdict}')
        elif self.state == COLLAPSED and found.state != COLLAPSED:
            runner.logger.info(f'The embedding is no longer collapsed: effective rank {found.statistics.rank:.1f}.')
        self.state = found.state

    def _embed(self, model: Any, view: int) -> Tensor:
        return torch.cat([model.extract(kept[view], stage='neck').float().cpu() for kept in self.recent])
