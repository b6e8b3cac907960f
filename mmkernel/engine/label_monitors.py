"""Accuracy while training, where there are labels: nearest neighbours, and a linear probe that learns beside the encoder."""

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.distributed import gather_rows
from mmkernel.engine.closing import NEAREST
from mmkernel.engine.first_look import look_at_evaluation
from mmkernel.engine.hooks import dataset_of, look_alone, unwrap
from mmkernel.engine.monitors import log_values
from mmkernel.engine.optimizers import as_built, step_where
from mmkernel.engine.virtual_batch import Snapshot
from mmkernel.evaluation import extract_features, top_k, weighted_knn
from mmkernel.evaluation.labels import classes_of, renumber
from mmkernel.models.state import sent
from mmkernel.registry import DATASETS, HOOKS


class _LabelMonitor(Hook):
    """The interval and the labelled images of both monitors; without labels they are off."""

    priority = 'LOW'  # before the checkpoint, after everything that trains
    evaluates = True  # images of the size of ``evaluation``

    def __init__(self, interval: int = 1, max_images: int | None = 10_000) -> None:
        check_numbers(type(self).__name__, whole=True, interval=interval)
        check_numbers(type(self).__name__, whole=True, none=True, least=2, max_images=max_images)
        self.interval, self.max_images, self.sources, self.on = interval, max_images, {}, False
        self.classes: tuple[str, ...] = ()  # whose numbers count

    def prepare(self, runner: Any, *names: str) -> bool:
        """Build the named sources of the evaluation part; False, and a line in the log, if one lacks labels of ``classes``."""
        part = runner.cfg.get('evaluation') or {}
        if not hasattr(unwrap(runner.model), 'extract'):
            return self._off(runner, f'{type(unwrap(runner.model)).__name__} has no extract(images)')
        for name in names:
            if name not in part:
                return self._off(runner, f'the config has no evaluation.{name}')
            source = self.sources[name] = DATASETS.build(part[name])
            labels = torch.as_tensor(source.labels)
            if not (labels >= 0).all():
                return self._off(runner, f'evaluation.{name} has images without a label')
            try:
                renumber(labels, classes_of(source), self.classes)
            except ValueError as error:
                return self._off(runner, error, runner.logger.warning)
            self.classes = self.classes or classes_of(source)
            look_at_evaluation(runner, name, source, self.max_images)
        return True

    def _off(self, runner: Any, reason: Any, say: Any = None) -> bool:
        (say or runner.logger.info)(f'{type(self).__name__} is off: {reason}. The embedding monitors need no labels.')
        return False

    def after_train_epoch(self, runner: Any) -> None:
        if self.on and self.every_n_epochs(runner, self.interval):
            look_alone(unwrap(runner.model), lambda: self._score(runner))

    def features(self, runner: Any, name: str) -> tuple[Tensor, Tensor]:
        """Backbone features and labels of at most ``max_images`` evenly spaced images, the same in every epoch."""
        part, source = runner.cfg.evaluation, self.sources[name]
        rows = range(0, len(source), -(-len(source) // (self.max_images or len(source))))
        settings = part.get('transform'), part.get('batch_size', 256), part.get('num_workers', 0)
        x, y = extract_features(unwrap(runner.model), source, *settings, rows=rows)
        return x, renumber(y.as_subclass(Tensor), classes_of(source), self.classes)


@HOOKS.register_module()
class KNNMonitorHook(_LabelMonitor):
    """After every ``interval`` epochs, weighted kNN of evaluation.test in evaluation.train: knn/top1, knn/top5 in percent.

    At most ``max_images`` of each, evenly spaced: the course of a run, not the benchmark (``mmkernel knn``).
    """

    def __init__(
        self, interval: int = 1, k: int = 20, temperature: float = 0.07, max_images: int | None = 10_000
    ) -> None:
        super().__init__(interval, max_images)
        check_numbers('KNNMonitorHook', whole=True, k=k)
        check_numbers('KNNMonitorHook', temperature=temperature)
        self.k, self.temperature = k, temperature

    def before_train(self, runner: Any) -> None:
        self.on = self.prepare(runner, 'train', 'test')

    def _score(self, runner: Any) -> None:
        bank, test = self.features(runner, 'train'), self.features(runner, 'test')
        if not (torch.isfinite(bank[0]).all() and torch.isfinite(test[0]).all()):
            return runner.logger.warning(f'kNN after epoch {runner.epoch + 1}: the features hold NaN or infinity.')
        k = min(self.k, len(bank[0]))
        score = weighted_knn(*bank, *test, k=k, temperature=self.temperature)[k]
        hub, now = runner.message_hub, dict(score=score['top1'], epoch=runner.epoch + 1)
        best = hub.runtime_info.get(NEAREST, now)
        best = now if now['score'] > best['score'] else best
        hub.update_info(NEAREST, best)
        place = (
            'the best so far'
            if best['epoch'] == now['epoch']
            else f'best {best["score"]:.1f} % after epoch {best["epoch"]}'
        )
        text = f'Epoch {now["epoch"]}: kNN {now["score"]:.1f} % of {len(test[0])} images, k = {k} of {len(bank[0])}; {place}.'
        log_values(runner, 'knn', dict(top1=score['top1'], top5=score['top5']), text)


@HOOKS.register_module()
class OnlineProbeHook(_LabelMonitor):
    """A softmax regression on the backbone's features of the training batches, detached: probe/top1, probe/top5.

    One SGD step per batch on the first view, weights from zero; all ranks take the same step on the rows of all. Features
    are standardised by running statistics and divided by the square root of their number, so that one ``lr`` fits any
    width. Scored on evaluation.test after every ``interval`` epochs; not the accuracy of ``mmkernel linear``, as it
    sees augmented images of a moving encoder. Its state travels in the checkpoint.
    """

    def __init__(
        self, interval: int = 1, lr: float = 1.0, momentum: float = 0.9, max_images: int | None = 10_000
    ) -> None:
        super().__init__(interval, max_images)
        check_numbers('OnlineProbeHook', lr=lr)
        check_numbers('OnlineProbeHook', zero=True, most=1.0, momentum=momentum)
        self.lr, self.momentum = lr, momentum
        self.saved: dict | None = None
        self.seen: Tensor | None = None

    def before_train(self, runner: Any) -> None:
        model, source = unwrap(runner.model), getattr(dataset_of(runner), 'source', None)
        self.classes = classes_of(source)
        largest = int(torch.as_tensor(getattr(source, 'labels', [-1])).max())
        classes = max(largest + 1, len(self.classes)) if largest > 0 else 0
        self.on = classes > 1 or self._off(runner, 'the training images have no labels')
        self.on = self.on and self.prepare(runner, 'test')
        if not self.on:
            return
        width = model.backbone.out_dim
        layers = nn.BatchNorm1d(width, affine=False), nn.utils.skip_init(nn.Linear, width, classes)
        nn.init.zeros_(layers[1].weight)  # draws nothing: the random state of the run stays
        nn.init.zeros_(layers[1].bias)
        self.probe = nn.Sequential(*layers).to(next(model.backbone.parameters()).device)
        self.optimizer = torch.optim.SGD(self.probe.parameters(), self.lr, self.momentum, fused=True)
        if self.saved is not None and self.saved['probe']['1.weight'].shape == (classes, width):
            self.probe.load_state_dict(self.saved['probe'])
            self.optimizer.load_state_dict(as_built(self.saved['optimizer'], self.optimizer))
        self.handle = model.backbone.register_forward_hook(self._look)

    def _look(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Keep the output of the first forward pass of a batch: it begins with the first view, however views are batched."""
        if self.seen is None and module.training:
            self.seen = output.detach()

    def _logits(self, x: Tensor) -> Tensor:
        standardise, linear = self.probe
        return linear(standardise(x) / x.shape[1] ** 0.5)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.seen = None

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """One step. It changes nothing if no row has a label or any is not finite; the device decides this."""
        if not self.on or self.seen is None:
            return
        batch = data_batch[0] if isinstance(data_batch, list) else data_batch  # of a virtual batch, its first part
        labels = sent(torch.as_tensor(batch['label']), self.seen.device)
        x, y = gather_rows(self.seen[: len(labels)].float(), checked=True), gather_rows(labels, checked=True)
        if len(x) < 2:
            return
        useful = torch.isfinite(x).all() & (y >= 0).any()  # the same for all ranks
        before = Snapshot([self.probe[0]])
        self.probe.train()
        loss = F.cross_entropy(self._logits(x), y, ignore_index=-1)
        self.optimizer.zero_grad()
        loss.backward()
        step_where(useful, self.optimizer)
        before.put_back(unless=useful)

    @torch.no_grad()
    def _score(self, runner: Any) -> None:
        x, y = self.features(runner, 'test')
        self.probe.eval()
        scores = top_k(self._logits(x.to(self.probe[1].weight.device)).cpu(), y)
        text = f'Epoch {runner.epoch + 1}: online probe {scores["top1"]:.1f} % of {len(y)} images.'
        log_values(runner, 'probe', scores, text)

    def after_train(self, runner: Any) -> None:
        if self.on:
            self.handle.remove()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if self.on:
            checkpoint['online_probe'] = dict(probe=self.probe.state_dict(), optimizer=self.optimizer.state_dict())

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """A resumed run continues its probe; ``load_from`` starts a new one."""
        self.saved = checkpoint.get('online_probe') if runner._resume else None
