"""Linear transfer to other data sets: logistic regression whose penalty is chosen on validation images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.datasets.draws import draw_per_class
from mmkernel.evaluation.inputs import as_labels, as_targets, scale_features, tell_classes
from mmkernel.evaluation.labels import aligned
from mmkernel.evaluation.logistic import logistic_path
from mmkernel.evaluation.metrics import class_precisions, label_ranks, mean_per_class, top_k

PENALTIES = tuple(np.logspace(-6, 5, 45).tolist())


class TransferSet(NamedTuple):
    """What a set of the suite is called in a registry, which splits are used, and how it is judged."""

    source: str
    train: str  # with the validation images, whether the authors chose them or we do
    metric: str = 'top1'


TRANSFER_SETS = {
    'food101': TransferSet('Food101', 'train'),
    'cifar10': TransferSet('CIFAR10', 'train'),
    'cifar100': TransferSet('CIFAR100', 'train'),
    'birdsnap': TransferSet('Birdsnap', 'train'),
    'sun397': TransferSet('SUN397', 'train'),
    'cars': TransferSet('StanfordCars', 'train'),
    'aircraft': TransferSet('FGVCAircraft', 'trainval', 'mean_per_class'),
    'voc2007': TransferSet('VOC2007', 'trainval', 'map11'),
    'dtd': TransferSet('DTD', 'trainval'),
    'pets': TransferSet('OxfordPets', 'trainval', 'mean_per_class'),
    'caltech101': TransferSet('Caltech101', 'train', 'mean_per_class'),
    'flowers102': TransferSet('Flowers102', 'trainval', 'mean_per_class'),
}
"""The twelve sets of Kornblith et al., CVPR 2019, and Chen et al., ICML 2020, appendix B.8: name (and folder below that
of all data) -> what it is. Every test split is called 'test'."""


def transfer(
    train_x: ArrayLike,
    train_y: ArrayLike,
    test_x: ArrayLike,
    test_y: ArrayLike,
    metric: str = 'top1',
    validation: ArrayLike | None = None,
    penalties: Sequence[float] = PENALTIES,
    scaling: str = 'none',
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """min_W sum_i CE(W x_i, y_i) + l2 ||W||^2 / 2, l2 chosen on the validation images, refitted with them: percent on the test.

    Kornblith et al., CVPR 2019; Chen et al., ICML 2020, B.8: 45 values of l2 between 1e-6 and 1e5, evenly in the logarithm,
    features as they are. (The papers do not say whether their loss is a sum or a mean; ours is the sum, scikit-learn's.)
    metric: 'top1'; 'mean_per_class', the mean over classes of each one's top-1; 'map11' for (N, C) targets 1, 0, -1 (-1 is
    left out): one logistic regression per class, 11-point mAP.
    validation: (N,) booleans; None: a fifth of each class, by ``seed``. Of equal scores the larger l2 wins.

    Returns ``dict(score=, metric=, l2=, validation=)``. Classes without a training image are never predicted right.
    """
    train_x, test_x = scale_features(train_x, test_x, scaling)
    train_y, test_y = aligned(train_y, test_y)
    read, kind = (as_targets, 'targets') if metric == 'map11' else (as_labels, 'labels')
    train_y, test_y = read(train_y, len(train_x), f'train {kind}'), read(test_y, len(test_x), f'test {kind}')
    if metric != 'map11':
        tell_classes(train_y, test_y)
    score_of, classes = _metric(metric, train_y, test_y)
    held_out = _held_out(train_y, seed) if validation is None else torch.as_tensor(validation, dtype=torch.bool)
    if held_out.shape != (len(train_x),) or held_out.all() or not held_out.any():
        raise ValueError(
            f'validation marks {int(held_out.sum())} of {tuple(held_out.shape)} images; expected some but not all of '
            f'{len(train_x)}, as booleans. (A fifth of each class is taken where none are named: of a single image none is.)'
        )
    if metric == 'map11' and not (train_y[held_out] == 1).any():
        raise ValueError('no validation image shows any class: nothing to choose l2 by. Name other validation images.')
    check_numbers(penalties=penalties, zero=True)
    device = torch.device(device) if device is not None else train_x.device
    kept = train_x[~held_out].to(device), train_y[~held_out].to(device)
    falling = sorted(penalties, reverse=True)
    scores = []
    for predict in logistic_path(*kept, falling, classes):
        scores.append(score_of(predict(train_x[held_out]).cpu(), train_y[held_out]))
        if progress:
            progress(len(scores), len(falling) + 1)
    best = int(np.argmax(scores))
    (predict,) = logistic_path(train_x.to(device), train_y.to(device), falling[best : best + 1], classes)
    score = score_of(predict(test_x).cpu(), test_y)
    if progress:
        progress(len(falling) + 1, len(falling) + 1)
    return dict(score=score, metric=metric, l2=falling[best], validation=scores[best])


def _metric(metric: str, train_y: Tensor, test_y: Tensor) -> tuple[Callable[[Tensor, Tensor], float], int]:
    """(logits, labels) -> percent, and the number of columns of the logits."""
    if metric == 'map11':
        classes = train_y.shape[1]
        return lambda z, y: float(np.mean([*class_precisions(y, z, points='11').values()])), classes
    classes = int(max(train_y.max(), test_y.max())) + 1
    if metric == 'top1':
        return lambda z, y: top_k(z, y, 1)['top1'], classes
    if metric == 'mean_per_class':
        return lambda z, y: mean_per_class(torch.where(label_ranks(z, y) < 1, y, -1), y), classes
    raise ValueError(f"metric={metric!r}; expected 'top1', 'mean_per_class' or 'map11'.")


def _held_out(y: Tensor, seed: int, share: float = 0.2) -> Tensor:
    """A fifth of each class (at least one image of those with two), or of all images where they have several classes."""
    draw = np.random.default_rng(seed).random(len(y))
    rows = draw_per_class(
        y.cpu().numpy() if y.ndim == 1 else np.zeros(len(y)),
        lambda label, n: max(round(share * n), 1 if n > 1 else 0),
        lambda label, members, k: members[draw[members].argsort(kind='stable')[:k]],
    )
    return torch.zeros(len(y), dtype=torch.bool).index_fill_(0, torch.from_numpy(rows), True)
