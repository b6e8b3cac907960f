"""Top-k accuracy, accuracy per class, and average precision as the PASCAL VOC benchmarks measure it."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mmkernel.checks import check_words


def label_ranks(scores: Tensor, label: Tensor) -> Tensor:
    """(..., C) scores and (...) true classes -> the rank of the true class from 0: below k, it is among the first k.

    Classes of equal score rank before the true one, so the numbering of classes cannot matter; scikit-learn's
    ``top_k_accuracy_score`` lets it decide. The rank is the largest int64 where the true class has no finite score (-inf: no
    vote, or absent from training), and where any score is NaN.
    """
    there = (label >= 0) & (label < scores.shape[-1])
    true_score = scores.gather(-1, torch.where(there, label, 0)[..., None])
    there = there & true_score[..., 0].isfinite() & ~scores.isnan().any(-1)
    return torch.where(there, (scores >= true_score).sum(-1) - 1, torch.iinfo(torch.int64).max)


def top_k(scores: Tensor, labels: Tensor, *ks: int) -> dict[str, float]:
    """``{'top1': , 'top5': }``: percent of the N rows whose label is among the first k of (N, C) scores, for each k."""
    ranks = label_ranks(scores, labels)
    return {f'top{k}': percent(ranks < k) for k in ks or (1, 5)}


def percent(hits: Tensor) -> float:
    """The share of true values in percent."""
    return 100 * int(hits.sum()) / hits.numel()


def mean_per_class(predicted: Tensor, labels: Tensor) -> float:
    """mean over classes c of the share of images of c that are predicted as c, in percent, without classes of no image."""
    right = (predicted == labels).double()
    return 100 * float(torch.stack([right[labels == c].mean() for c in labels.unique()]).mean())


def mean_and_sd(values: Sequence[float]) -> dict[str, Any]:
    """``dict(mean=, sd=, values=)``: ``sd`` is the sample deviation (divisor n - 1), 0 of a single value."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return dict(mean=float(np.mean(values)), sd=sd, values=list(values))


def average_precision(relevant: ArrayLike, scores: ArrayLike, points: str = 'all') -> float:
    """AP = sum_i (r_i - r_{i-1}) max_{r >= r_i} p(r) ('all'), or mean over t in {0, .1, ..., 1} of max_{r >= t} p(r) ('11').

    Everingham et al., IJCV 2010: '11' up to VOC2007, 'all' since. ``relevant``: (N,) booleans, at least one true;
    ``scores``: (N,), higher means more relevant. Images of equal score count together. scikit-learn's
    ``average_precision_score`` is 'all' without the maximum.
    """
    from sklearn.metrics import precision_recall_curve  # its import takes a second

    relevant, scores = np.asarray(relevant), np.asarray(scores)
    check_words(points=(points, ('all', '11')))
    if relevant.shape != scores.shape or not (relevant == 1).any():
        count = f'{int((relevant == 1).sum())} of {relevant.shape} images are relevant'
        raise ValueError(
            f'{count}; expected one score for each (scores: {scores.shape}), and at least one relevant image.'
        )
    if not np.isin(relevant, (0, 1)).all() or not np.isfinite(scores).all():
        raise ValueError('expected relevance of 0 and 1 (leave difficult images, -1, out) and finite scores.')
    precision, recall, _ = precision_recall_curve(relevant, scores)
    precision, recall = precision[-2::-1], recall[-2::-1]  # by rising recall, without the point (0, 1) that it appends
    best = np.maximum.accumulate(precision[::-1])[::-1]  # max over r >= r_i of p(r)
    if points == 'all':
        return float(np.sum(np.diff(recall, prepend=0) * best))
    # in tenths, with a margin: 3 of 10 found is a recall of .3, whatever 3 * .1 rounds to
    return float(best[np.searchsorted(10 * recall, np.arange(11) - 1e-9)].mean())


def class_precisions(
    targets: ArrayLike, scores: ArrayLike, classes: Sequence[str] | None = None, points: str = 'all', warn: bool = True
) -> dict[str, float]:
    """{class: AP in percent} of (N, C) ``scores`` against ``targets`` 1 (there), 0 (not there), -1 (left out).

    A class without a test image has no AP: it is left out of the answer, with a warning (``warn``).
    """
    targets, scores = np.asarray(targets), np.asarray(scores)
    if targets.ndim != 2 or targets.shape != scores.shape or not np.isin(targets, (-1, 0, 1)).all():
        raise ValueError(
            f'targets of shape {targets.shape} and scores of shape {scores.shape}; expected two of (images, classes), '
            'targets of 1 (there), 0 (not there), -1 (left out).'
        )
    names, there = class_names(classes, targets.shape[1]), (targets == 1).any(0)
    if warn and not there.all():
        without = ', '.join(name for name, shown in zip(names, there, strict=True) if not shown)
        warnings.warn(f'no test image of {without} (difficult ones do not count): left out of the mean.', stacklevel=2)
    if not there.any():
        raise ValueError('no class has a test image: there is nothing to average. Look at the test source.')
    counted = targets != -1
    return {
        names[k]: 100 * average_precision(targets[counted[:, k], k] == 1, scores[counted[:, k], k], points)
        for k in np.flatnonzero(there)
    }


def mean_average_precision(targets: ArrayLike, scores: ArrayLike, points: str = 'all', warn: bool = True) -> float:
    """mAP in percent: the mean of :func:`class_precisions`."""
    return float(np.mean([*class_precisions(targets, scores, None, points, warn).values()]))


def class_names(classes: Sequence[str] | None, count: int) -> list[str]:
    """The names given, or 'class 0', 'class 1', ..."""
    names = list(classes) if classes else [f'class {k}' for k in range(count)]
    if len(names) != count:
        raise ValueError(f'{len(names)} class names for {count} columns of targets.')
    return names
