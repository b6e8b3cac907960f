"""Hooks of a classifier's run: pretrained weights before it, accuracy after each epoch."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from mmkernel.checks import check_numbers
from mmkernel.engine.checkpoint import CheckpointError
from mmkernel.engine.cluster_hook import dataset_of
from mmkernel.engine.hooks import unwrap
from mmkernel.evaluation import METRICS, accuracy, accuracy_history, main_metrics, metric_of
from mmkernel.evaluation.classifier_metrics import HISTORY
from mmkernel.evaluation.labels import classes_of
from mmkernel.registry import HOOKS
from mmkernel.zoo import load_file


@HOOKS.register_module()
class BackboneWeightsHook(Hook):
    """Before a run, ``model.backbone`` gets its weights from ``checkpoint``; every tensor of it must be filled.

    ``checkpoint``: of a pretraining, here or in another code base (prefixes are found), or a plain state dict of the
    backbone. A resumed run overwrites them. ``adapt_input``: filters for RGB serve images of other channels, see
    ``mmkernel.zoo.load_file``.
    """

    priority = 'VERY_HIGH'

    def __init__(self, checkpoint: str, adapt_input: bool = False) -> None:
        self.checkpoint, self.adapt_input = checkpoint, adapt_input

    def before_run(self, runner: Any) -> None:
        try:
            report = load_file(unwrap(runner.model).backbone, self.checkpoint, adapt_input=self.adapt_input)
        except CheckpointError as error:
            raise CheckpointError(f'{error} The backbone must be the one of the pretraining config.') from None
        runner.logger.info(f'Backbone from {self.checkpoint}: {report}.')


@HOOKS.register_module()
class AccuracyHook(Hook):
    """After every ``interval`` epochs and the last: ``accuracy`` on ``evaluation.test`` of the config, last and best.

    The best epoch is chosen on those images, as the published protocols do: it is optimistic, the last epoch is not.
    """

    priority = 'LOW'  # before the checkpoint, which then holds the history

    def __init__(self, interval: int = 1) -> None:
        check_numbers('AccuracyHook', whole=True, interval=interval)
        self.interval = interval

    def before_train(self, runner: Any) -> None:
        if 'evaluation' not in runner.cfg:
            raise ValueError(
                "AccuracyHook measures on evaluation.test of the config, which has no 'evaluation' part; add "
                'evaluation=dict(test=<source>, transform=dict(...)), or leave the hook out.'
            )

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """What the columns of the head stand for, without which it can only be tested beside its training images."""
        checkpoint['classes'] = list(_classes(runner))

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Files of earlier versions hold the history as one column for each name."""
        hub = checkpoint.get('message_hub') or {}
        columns = {
            name.removeprefix('test/'): each['values'].tolist()
            for name, each in hub.get('log_scalars', {}).items() if name.startswith('test/')
        }  # fmt: skip
        if columns and HISTORY not in hub['runtime_info']:
            rows = zip(*columns.values(), strict=True)
            hub['runtime_info'][HISTORY] = [dict(zip(columns, row, strict=True)) for row in rows]
            hub['resumed_keys'][HISTORY] = True

    def after_train_epoch(self, runner: Any) -> None:
        if not (self.every_n_epochs(runner, self.interval) or runner.epoch + 1 == runner.max_epochs):
            return
        result = accuracy(unwrap(runner.model), runner.cfg.evaluation, _classes(runner))
        row = dict(result, epoch=runner.epoch + 1)
        runner.message_hub.update_scalars({f'test/{name}': value for name, value in row.items()})
        runner.message_hub.update_info(HISTORY, [*runner.message_hub.get_info(HISTORY, []), row])
        runner.visualizer.add_scalars({f'test/{name}': value for name, value in result.items()}, step=runner.epoch + 1)
        metric = metric_of(runner.cfg)
        best = accuracy_history(runner.message_hub, metric)['best']
        first, second = main_metrics(result)
        runner.logger.info(
            f'Epoch {runner.epoch + 1}: test {METRICS[first]} {result[first]:.2f} %, {METRICS[second]} '
            f'{result[second]:.2f} % (best {METRICS[metric]} {best[metric]:.2f} % after epoch {best["epoch"]}).'
        )


def _classes(runner: Any) -> tuple[str, ...]:
    """The names of the training classes."""
    return classes_of(getattr(dataset_of(runner), 'source', None))
