"""Test metrics of a classifier: accuracy where an image has one class, average precision where it has several."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_dist_info
from torch import Tensor, nn

from mmkernel.evaluation.features import evaluation_loader
from mmkernel.evaluation.inputs import as_labels
from mmkernel.evaluation.labels import Labels, aligned, classes_of, labels_of, renumber
from mmkernel.evaluation.metrics import class_names, label_ranks, mean_average_precision, mean_per_class, percent
from mmkernel.registry import DATASETS, MODELS

HISTORY = 'test_history'  # key of AccuracyHook in the message hub: one dict for each epoch that was tested
METRICS = dict(
    top1='top-1', top5='top-5', mean_per_class='mean per class', map11='11-point mAP', map='mAP', loss='loss'
)


class OneClassMetrics:
    """Top-1, top-5 and mean per class in percent, and cross-entropy.

    As in ``SeveralClassesMetrics``, each process fills the rows of its images in one table; the sum of the tables is that of
    one process.
    """

    shown = ('top1', 'top5')
    metrics = ('top1', 'top5', 'mean_per_class')

    def __init__(self, classes: int, images: int) -> None:
        self.sums = torch.zeros(images, 3, dtype=torch.float64)  # label, its rank, and loss of each image

    def add(self, rows: Tensor, logits: Tensor, batch: Mapping[str, Tensor]) -> None:
        """The (B, C) ``logits``, on the CPU, of images ``rows`` (B,) of the source, or of their substitutes."""
        label = batch['label']
        found = label, label_ranks(logits, label), F.cross_entropy(logits, label, reduction='none')
        self.sums[rows] = torch.stack([column.double() for column in found], dim=1)

    def scores(self, sums: Tensor) -> dict[str, float]:
        """Of the ``sums`` of all processes."""
        label, rank, loss = sums.T
        by_class = mean_per_class(torch.where(rank < 1, label, -1), label)
        return dict(top1=percent(rank < 1), top5=percent(rank < 5), mean_per_class=by_class, loss=float(loss.mean()))

    @staticmethod
    def check(sources: Mapping[str, Any], classes: int) -> None:
        """ValueError unless all labels lie in 0 .. classes - 1, those of the test numbered as the training's."""
        labels = {name: Labels(source.labels, classes_of(source)) for name, source in sources.items()}
        for name, source in sources.items():
            if getattr(source, 'targets', None) is not None and (labels[name] < 0).all():
                raise ValueError(
                    f'The {name} images are of several classes each. Set model.objective=dict(type="SeveralClasses"), as '
                    'in configs/benchmarks/finetune_voc2007.py.'
                )
            as_labels(labels[name], len(source), f'{name} labels')
        for name, y in _numbered_alike(labels).items():
            if (count := int(y.max()) + 1) > classes:
                raise ValueError(
                    f'The {name} images have labels up to {count - 1}, but model.num_classes={classes}; expected at least '
                    f'{count}: --cfg-options model.num_classes={count}.'
                )


class SeveralClassesMetrics:
    """Mean over classes of 11-point and all-points average precision in percent, and the loss of ``SeveralClasses``.

    Everingham et al., IJCV 2010. Images in which a class is -1 do not count for it.
    """

    shown = ('map11', 'map')
    metrics = ('map11', 'map')

    def __init__(self, classes: int, images: int) -> None:
        self.sums = torch.zeros(images, 2 * classes, dtype=torch.float64)  # logits and targets of each image

    def add(self, rows: Tensor, logits: Tensor, batch: Mapping[str, Tensor]) -> None:
        """The (B, C) ``logits``, on the CPU, of images ``rows`` (B,) of the source."""
        self.sums[rows] = torch.cat([logits, batch['targets']], dim=1).double()

    def scores(self, sums: Tensor) -> dict[str, float]:
        """Of the ``sums`` of all processes. A class without a test image is left out of the means, with a warning."""
        logits, targets = sums.chunk(2, dim=1)
        if bad := int((~torch.isfinite(logits)).any(1).sum()):
            text = f'The logits of {bad} of {len(logits)} test images are NaN or infinite: the classifier has diverged.'
            raise ValueError(f'{text} Lower the learning rate.')
        losses = F.binary_cross_entropy_with_logits(logits, (targets == 1).double(), reduction='none')
        return dict(
            map11=mean_average_precision(targets, logits, '11', warn=False),
            map=mean_average_precision(targets, logits),
            loss=float((losses * (targets >= 0)).sum() / len(logits)),
        )

    @staticmethod
    def check(sources: Mapping[str, Any], classes: int) -> None:
        """ValueError unless training and test images have the same classes and show some; a warning for those not in training."""
        known = {name: labels_of(source) for name, source in sources.items()}
        known = _numbered_alike(known) if all(y.ndim == 2 for y in known.values()) else known
        for name, source in sources.items():
            targets, shape = known[name], tuple(known[name].shape)
            if shape != (len(source), classes):
                given = f'targets of shape {shape}' if targets.ndim == 2 else 'one class each'
                hint = f' Set model.num_classes={shape[1]}.' if targets.ndim == 2 and shape[1] != classes else ''
                raise ValueError(
                    f'The {name} images have {given}; model.objective and model.num_classes={classes} expect targets of '
                    f'shape ({len(source)}, {classes}).{hint}'
                )
            names = class_names(classes_of(sources['training']), classes)
            without = [label for label, there in zip(names, (targets == 1).any(0), strict=True) if not there]
            if len(without) == classes:
                raise ValueError(f'No {name} image shows any of the {classes} classes: look at its source.')
            if without and name == 'training':
                text = f'no training image of {", ".join(without)} (difficult ones do not count): the classifier learns that '
                warnings.warn(f'{text}they are never there, and their average precision says nothing.', stacklevel=2)


def _numbered_alike(labels: dict[str, Labels]) -> dict[str, Tensor]:
    """The test labels under the numbers of the training, if there are both."""
    return dict(zip(labels, aligned(*labels.values()), strict=True)) if len(labels) == 2 else labels


BY_TARGET = dict(label=OneClassMetrics, targets=SeveralClassesMetrics)
"""Metrics by the part of a batch that the objective of the classifier reads."""


def metrics_of(model: Mapping[str, Any]) -> type[OneClassMetrics] | type[SeveralClassesMetrics]:
    """The metrics for the config of a Classifier."""
    objective = model.get('objective') or dict(type='OneClass')
    return BY_TARGET[MODELS.get(objective['type']).reads]


def metric_of(cfg: Mapping[str, Any]) -> str:
    """The metric that chooses epochs and settings: ``evaluation.metric`` of the config, else the first that tables show."""
    judge = metrics_of(cfg['model'])
    metric = cfg.get('evaluation', {}).get('metric') or judge.shown[0]
    if metric not in judge.metrics:
        raise ValueError(f'evaluation.metric={metric!r}; this classifier is judged by {", ".join(judge.metrics)}.')
    return metric


def main_metrics(scores: Mapping[str, Any]) -> tuple[str, str]:
    """The two figures that a table prints."""
    return next(judge.shown for judge in BY_TARGET.values() if judge.shown[0] in scores)


def metrics_heading(scores: Mapping[str, Any]) -> str:
    """'top-1/top-5', or '11-point mAP/mAP'."""
    return '/'.join(METRICS[name] for name in main_metrics(scores))


@torch.no_grad()
def accuracy(model: nn.Module, part: Mapping[str, Any], classes: Sequence[str] = ()) -> dict[str, float]:
    """The metrics of a classifier on ``part['test']``: ``dict(top1=, top5=, mean_per_class=, loss=)`` in percent where an
    image has one class, ``dict(map11=, map=, loss=)`` where it has several.

    ``part``: the ``evaluation`` of a config; ``classes``: the names of the training classes, under whose numbers the test
    images are judged. With W processes each takes every W-th image. ValueError for a head that has never been trained.
    """
    if int(model.steps) == 0:
        raise ValueError('The head of this classifier has never been trained: its accuracy is chance. Train it first.')
    rank, world_size = get_dist_info()
    source = DATASETS.build(part['test']) if isinstance(part['test'], Mapping) else part['test']
    given, reads = classes_of(source), model.objective.reads
    renumber(torch.as_tensor(labels_of(source)), given, classes)  # raises before the work
    settings = {key: part[key] for key in ('transform', 'batch_size', 'num_workers') if key in part}
    judge = BY_TARGET[reads](model.num_classes, len(source))
    rows, done = torch.arange(rank, len(source), world_size), 0
    for batch in evaluation_loader(source, rows=rows.tolist(), **settings) if len(rows) else ():
        answers = {**batch, reads: renumber(batch[reads], given, classes)}
        logits = model.extract(batch['inputs'][0], stage='head').float().cpu()
        judge.add(rows[done : done + len(logits)], logits, answers)  # not sample_index: substitutes have their own
        done += len(logits)
    sums = judge.sums.to(next(model.parameters()).device)  # where collectives work
    all_reduce(sums)
    return judge.scores(sums.cpu())


def accuracy_history(message_hub: Any, metric: str | None = None) -> dict[str, Any]:
    """``dict(last=, best=, history=)`` of what AccuracyHook has recorded; the best by ``metric`` (top-1, or 11-point mAP)."""
    rows = message_hub.get_info(HISTORY)
    history = [dict(epoch=int(row['epoch']), **{name: row[name] for name in METRICS if name in row}) for row in rows]
    metric = metric or main_metrics(history[0])[0]
    return dict(last=history[-1], best=max(history, key=lambda row: row[metric]), history=history)
