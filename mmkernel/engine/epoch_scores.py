"""Scores of the model after epochs: the accuracy of a classifier, and the checkpoint that a label-free criterion likes best."""

import math
from typing import Any

from mmengine.hooks import Hook

from mmkernel.checks import check_numbers
from mmkernel.engine.first_look import look_at_evaluation
from mmkernel.engine.hooks import dataset_of, look_alone, unwrap
from mmkernel.engine.monitors import log_values
from mmkernel.evaluation import YARDSTICK, run_kernel
from mmkernel.evaluation.checkpoint_selection import CRITERIA, RISING, checkpoint_statistics, criterion_score
from mmkernel.evaluation.classifier_metrics import HISTORY, METRICS, accuracy, accuracy_history, main_metrics, metric_of
from mmkernel.evaluation.labels import classes_of
from mmkernel.registry import HOOKS


@HOOKS.register_module()
class AccuracyHook(Hook):
    """After every ``interval`` epochs and the last: ``accuracy`` on ``evaluation.test`` of the config, last and best.

    The best epoch is chosen on those images, as the published protocols do: it is optimistic, the last epoch is not.
    """

    priority = 'LOW'  # before the checkpoint, which then holds the history
    evaluates = True  # images of the size of ``evaluation``

    def __init__(self, interval: int = 1) -> None:
        check_numbers('AccuracyHook', whole=True, interval=interval)
        self.interval = interval

    def before_train(self, runner: Any) -> None:
        self.classes = classes_of(getattr(dataset_of(runner), 'source', None))
        if 'evaluation' not in runner.cfg:
            raise ValueError(
                "AccuracyHook measures on evaluation.test of the config, which has no 'evaluation' part: add "
                'evaluation=dict(test=<source>, transform=dict(...)).'
            )
        look_at_evaluation(runner, 'test', runner.cfg.evaluation['test'])

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """The class names of the head's columns: with them it can be tested without its training images."""
        checkpoint['classes'] = list(self.classes)

    def after_train_epoch(self, runner: Any) -> None:
        epoch, hub = runner.epoch + 1, runner.message_hub
        if not (self.every_n_epochs(runner, self.interval) or epoch == runner.max_epochs):
            return
        result = accuracy(unwrap(runner.model), runner.cfg.evaluation, self.classes)
        row = dict(result, epoch=epoch)
        hub.update_scalars({f'test/{name}': value for name, value in row.items()})
        hub.update_info(HISTORY, [*hub.get_info(HISTORY, []), row])
        named = {f'test/{name}': value for name, value in result.items()}
        runner.visualizer.add_scalars({'epoch': epoch, **named}, step=runner.iter)
        metric, (first, second) = metric_of(runner.cfg), main_metrics(result)
        best = accuracy_history(hub, metric)['best']
        runner.logger.info(
            f'Epoch {epoch}: test {METRICS[first]} {result[first]:.2f} %, {METRICS[second]} {result[second]:.2f} % '
            f'(best {METRICS[metric]} {best[metric]:.2f} % after epoch {best["epoch"]}).'
        )


@HOOKS.register_module()
class KeepBestHook(Hook):
    """After every ``interval`` epochs, ``best_<criterion>.pth`` if the score of the embeddings is the best so far.

    The score is that of ``mmkernel.evaluation.checkpoint_selection`` on ``images`` training images, the same ones and the same
    views each time, in eval mode; no label is read. The file is a whole checkpoint, from which resuming never starts. Of equal
    scores the first stays. How far each criterion can be trusted: docs/choosing_a_checkpoint.md.
    """

    priority = 'LOW'  # before the checkpoint of the epoch, which then holds the best score

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
            found = f'{type(model).__name__} and {type(dataset).__name__}'
            raise ValueError(f'KeepBestHook needs a model with extract() and a ViewDataset with a source, got {found}.')

    def after_train_epoch(self, runner: Any) -> None:
        epoch, key = runner.epoch + 1, f'best_{self.criterion}'
        if epoch < self.start_epoch or not self.every_n_epochs(runner, self.interval):
            return
        score = look_alone(
            unwrap(runner.model), lambda: self._score(runner)
        )  # the same in all ranks, which save together
        record = runner.message_hub.runtime_info.get(key)
        place = f'best {record["score"]:.4g} after epoch {record["epoch"]}.' if record else 'never kept.'
        if math.isfinite(score) and (record is None or score > record['score']):
            runner.message_hub.update_info(key, dict(score=score, epoch=epoch))
            runner.save_checkpoint(runner.work_dir, f'{key}.pth')
            place = f'the best so far: saved {key}.pth.'
        text = f'Epoch {epoch}: {self.criterion} score {score:.4g}, {place}'
        log_values(runner, 'keep_best', {self.criterion: score if self.criterion in RISING else -score}, text)

    def _score(self, runner: Any) -> float:
        model, source = unwrap(runner.model), dataset_of(runner).source
        statistics = checkpoint_statistics(model, runner.cfg, run_kernel(model) or YARDSTICK, self.images, source)
        return criterion_score(self.criterion, statistics)
