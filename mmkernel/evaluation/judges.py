"""How a classifier's logits are judged: each image's one class, or all its classes. Parts of W processes add up."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.evaluation.average_precision import class_names, class_precisions
from mmkernel.evaluation.inputs import as_labels
from mmkernel.evaluation.labels import Labels, aligned, classes_of
from mmkernel.registry import MODELS

METRICS = dict(
    top1='top-1', top5='top-5', mean_per_class='mean per class', map11='11-point mAP', map='mAP', loss='loss'
)


def places(scores: Tensor, label: Tensor) -> Tensor:
    """(..., C) scores and (...) true classes -> how many classes stand before the true one: below k, it is among the first k.

    Classes of equal score stand before it, so that the answer cannot depend on how classes are numbered. A class whose own
    score is not finite (-inf: without a vote, or absent from training) has no place, nor has any where a score is NaN.
    """
    there = (label >= 0) & (label < scores.shape[-1])
    own = scores.gather(-1, torch.where(there, label, 0)[..., None])
    there = there & own[..., 0].isfinite() & ~scores.isnan().any(-1)
    return torch.where(there, (scores >= own).sum(-1) - 1, torch.iinfo(torch.int64).max)


class OneClassJudge:
    """Top-1, top-5 and mean per class in percent, and cross-entropy, from counts: those of W processes add up."""

    shown = ('top1', 'top5')
    metrics = ('top1', 'top5', 'mean_per_class')

    def __init__(self, classes: int, images: int) -> None:
        self.classes = classes
        self.sums = torch.zeros(2 * classes + 2, dtype=torch.float64)  # right in each class, images, among five, loss

    def add(self, logits: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Of (B, C) ``logits`` on the CPU."""
        label = batch['label']
        place = places(logits, label)
        counts = [torch.bincount(part, minlength=self.classes) for part in (label[place < 1], label)]
        loss = F.cross_entropy(logits, label, reduction='sum')
        self.sums += torch.cat([*counts, (place < 5).sum()[None], loss[None]]).double()

    def scores(self, sums: Tensor) -> dict[str, float]:
        """Of the ``sums`` of all processes."""
        right, of_class, (among, loss) = sums.split([self.classes, self.classes, 2])
        images, seen = of_class.sum(), of_class > 0
        return dict(
            top1=float(100 * right.sum() / images),
            top5=float(100 * among / images),
            mean_per_class=float(100 * (right[seen] / of_class[seen]).mean()),
            loss=float(loss / images),
        )

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
        if len(labels) == 2:
            labels = dict(zip(labels, aligned(*labels.values()), strict=True))
        for name, y in labels.items():
            largest = int(y.max())
            if largest >= classes:
                raise ValueError(
                    f'The {name} images have labels up to {largest}, but model.num_classes={classes}; expected at least '
                    f'{largest + 1}: --cfg-options model.num_classes={largest + 1}.'
                )


class SeveralClassesJudge:
    """Mean over classes of 11-point and all-points average precision in percent, and the loss of ``SeveralClasses``.

    Everingham et al., IJCV 2010. A ranking needs the logits of all images: each process fills its rows of one table, and
    the sum of the tables is that of one process. Images in which a class is -1 do not count for it.
    """

    shown = ('map11', 'map')
    metrics = ('map11', 'map')

    def __init__(self, classes: int, images: int) -> None:
        self.sums = torch.zeros(images, 2 * classes, dtype=torch.float64)  # logits and targets of each image

    def add(self, logits: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Of (B, C) ``logits`` on the CPU."""
        self.sums[batch['sample_index']] = torch.cat([logits, batch['targets']], dim=1).double()

    def scores(self, sums: Tensor) -> dict[str, float]:
        """Of the ``sums`` of all processes. A class without a test image is left out of the means, with a warning."""
        logits, targets = sums.chunk(2, dim=1)
        bad = int((~torch.isfinite(logits)).any(1).sum())
        if bad:
            raise ValueError(
                f'The logits of {bad} of {len(logits)} test images are NaN or infinite: the classifier has diverged. '
                'Lower the learning rate.'
            )
        precisions = class_precisions(targets, logits, points='11')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about classes without a test image: said once already
            areas = class_precisions(targets, logits)
        losses = F.binary_cross_entropy_with_logits(logits, (targets == 1).double(), reduction='none')
        return dict(
            map11=float(np.mean([*precisions.values()])),
            map=float(np.mean([*areas.values()])),
            loss=float((losses * (targets >= 0)).sum() / len(logits)),
        )

    @staticmethod
    def check(sources: Mapping[str, Any], classes: int) -> None:
        """ValueError unless test and training images have the same classes and show some; a warning for those not in training."""
        known = {name: getattr(source, 'targets', None) for name, source in sources.items()}
        if len(known) == 2 and all(np.ndim(targets) == 2 for targets in known.values()):
            named = [Labels(known[name], classes_of(source)) for name, source in sources.items()]
            known = dict(zip(known, aligned(*named), strict=True))
        for name, source in sources.items():
            targets = known[name]
            shape = None if targets is None else tuple(np.shape(targets))
            if shape != (len(source), classes):
                given = 'one class each' if targets is None else f'targets of shape {shape}'
                raise ValueError(
                    f'The {name} images have {given}; model.objective and model.num_classes={classes} expect targets of '
                    f'shape ({len(source)}, {classes}).'
                    + (f' Set model.num_classes={shape[1]}.' if shape and shape[1] != classes else '')
                )
            names = class_names(classes_of(sources['training']), classes)
            without = [label for label, there in zip(names, (targets == 1).any(0), strict=True) if not there]
            if len(without) == classes:
                raise ValueError(f'No {name} image shows any of the {classes} classes: look at its source.')
            if without and name == 'training':
                warnings.warn(
                    f'no training image of {", ".join(without)} (difficult ones do not count): the classifier learns that '
                    'they are never there, and their average precision says nothing.',
                    stacklevel=2,
                )


JUDGES = dict(label=OneClassJudge, targets=SeveralClassesJudge)
"""By what the objective of a classifier reads from a batch."""


def judge_of(model: Mapping[str, Any]) -> type[OneClassJudge] | type[SeveralClassesJudge]:
    """Of the config of a Classifier."""
    objective = model.get('objective') or dict(type='OneClass')
    return JUDGES[MODELS.get(objective['type']).reads]


def metric_of(cfg: Mapping[str, Any]) -> str:
    """By which epochs and settings are chosen: ``evaluation.metric`` of a classifier's config, else what its tables show."""
    judge = judge_of(cfg['model'])
    metric = cfg.get('evaluation', {}).get('metric') or judge.shown[0]
    if metric not in judge.metrics:
        raise ValueError(f'evaluation.metric={metric!r}; this classifier is judged by {", ".join(judge.metrics)}.')
    return metric


def main_metrics(scores: Mapping[str, Any]) -> tuple[str, str]:
    """The two figures that a table prints."""
    return next(judge.shown for judge in JUDGES.values() if judge.shown[0] in scores)


def metrics_heading(scores: Mapping[str, Any]) -> str:
    """'top-1/top-5', or '11-point mAP/mAP'."""
    return '/'.join(METRICS[name] for name in main_metrics(scores))
