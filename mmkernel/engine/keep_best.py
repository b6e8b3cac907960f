"""Keep the checkpoint that a label-free criterion likes best."""

from __future__ import annotations

import math
from typing import Any

from mmengine.hooks import Hook

from mmkernel.checks import check_numbers
from mmkernel.distributed import on_first_process
from mmkernel.engine.cluster_hook import dataset_of
from mmkernel.engine.hooks import unwrap
from mmkernel.engine.monitors import log_values, same_random_state
from mmkernel.evaluation import CRITERIA, YARDSTICK, checkpoint_statistics, criterion_score, run_kernel
from mmkernel.evaluation.checkpoint_selection import RISING
from mmkernel.registry import HOOKS


@HOOKS.register_module()
class KeepBestHook(Hook):
    """After every ``interval`` epochs, ``best_<criterion>.pth`` if the score of the embeddings is the best so far.

    The score is that of ``mmkernel.evaluation.checkpoint_selection`` on ``images`` training images, the same ones and the same
    views each time, in eval mode; no label is read. The log has the quantity itself, ``keep_best/<criterion>``, not its negative.
    The file is a whole checkpoint beside ``epoch_N.pth``: those are neither deleted nor taken for it, and resuming never
    starts from it. Of equal scores the first stays; one that is not finite never counts. The record travels in checkpoints,
    so a resumed run keeps the same file as a straight one. How far each criterion can be trusted:
    docs/choosing_a_checkpoint.md.
    """

    priority = 'LOW'  # before the epoch's own checkpoint, which is to know the record

    def __init__(self, criterion: str = 'mmd2', interval: int = 1, images: int = 1000, start_epoch: int = 1) -> None:
        if criterion not in CRITERIA:
            raise ValueError(f'KeepBestHook.criterion is one of {", ".join(CRITERIA)}, got {criterion!r}.')
        check_numbers('KeepBestHook', whole=True, interval=interval)
        check_numbers('KeepBestHook', whole=True, least=2, images=images)
        check_numbers('KeepBestHook', whole=True, zero=True, start_epoch=start_epoch)
        self.writes = (f'best_{criterion}.pth',)
        self.criterion, self.interval, self.images, self.start_epoch = criterion, interval, images, start_epoch

    def before_train(self, runner: Any) -> None:
        model, dataset = unwrap(runner.model), dataset_of(runner)
        if not (hasattr(model, 'extract') and hasattr(dataset, 'source')):
            raise ValueError(
                'KeepBestHook needs a model with extract(images, stage) and a ViewDataset with a source, got '
                f'{type(model).__name__} and {type(dataset).__name__}.'
            )

    def after_train_epoch(self, runner: Any) -> None:
        epoch = runner.epoch + 1
        if epoch < self.start_epoch or not self.every_n_epochs(runner, self.interval):
            return
        # a decision of rank 0: saving is for all ranks or for none
        score, key = on_first_process(lambda: self._score(runner)), f'best_{self.criterion}'
        record = runner.message_hub.runtime_info.get(key)
        better = math.isfinite(score) and (record is None or score > record['score'])
        if better:
            runner.message_hub.update_info(key, dict(score=score, epoch=epoch))
            runner.save_checkpoint(runner.work_dir, f'{key}.pth')
        before = f'best {record["score"]:.4g} after epoch {record["epoch"]}.' if record else 'never kept.'
        place = f'the best so far: {key}.pth.' if better else before
        text = f'{self.criterion} after epoch {epoch}: score {score:.4g}, {place}'
        log_values(runner, 'keep_best', {self.criterion: score if self.criterion in RISING else -score}, text)

    def _score(self, runner: Any) -> float:
        model, source = unwrap(runner.model), dataset_of(runner).source
        with same_random_state():
            statistics = checkpoint_statistics(model, runner.cfg, run_kernel(model) or YARDSTICK, self.images, source)
        return criterion_score(self.criterion, statistics)
