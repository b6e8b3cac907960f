"""Few-label accuracy: kNN and logistic regression with 1, 4, ... labelled images per class, and with all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mmkernel.datasets.draws import draw_per_class
from mmkernel.evaluation.inputs import as_split, scale_features
from mmkernel.evaluation.knn import weighted_knn
from mmkernel.evaluation.logistic import logistic_regression
from mmkernel.evaluation.metrics import mean_and_sd

ALL = 'all'


def draw_labelled(labels: Tensor | np.ndarray, per_class: int, draw: int, seed: int = 0) -> Tensor:
    """Indices of ``per_class`` images of every class, class by class: draw number ``draw`` of the series ``seed``.

    A function of the labels and the three numbers alone, so that two encoders are compared on the same images.
    """
    rng = np.random.default_rng((seed, per_class, draw))
    rows = draw_per_class(
        labels, lambda label, n: per_class, lambda label, members, k: rng.choice(members, k, replace=False)
    )
    return torch.from_numpy(rows)


def few_label_scores(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    shots: Sequence[int] = (1, 4),
    draws: int = 20,
    seed: int = 0,
    k: int = 20,
    temperature: float = 0.07,
    strength: float = 100.0,
    scaling: str = 'l2',
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, dict]]:
    """``{'knn' | 'linear': {'1', '4', 'all': dict(mean=, sd=, values=[percent of each draw])}}`` on the test set.

    kNN is the weighted vote of as many nearest as there are labels per class, at most ``k``: with more, images of other
    classes must vote, which punishes encoders whose cosines are all alike. (With one label per class the nearest image
    decides whatever k.) Linear is L-BFGS logistic regression on features scaled by statistics of the whole training
    set, which need no label. ``sd`` is the sample deviation over draws (divisor draws - 1).
    """
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y)
    scaled, scaled_test = scale_features(train_x, test_x, scaling)
    occurring = len(train_y.unique())  # numbers of classes may have gaps

    def both(rows: Tensor | slice) -> tuple[float, float]:
        count = max(1, min(k, len(train_y[rows]) // occurring))
        vote = weighted_knn(train_x[rows], train_y[rows], test_x, test_y, count, temperature, classes)
        line = logistic_regression(scaled[rows], train_y[rows], scaled_test, test_y, strength, 'none')
        return vote[count]['top1'], line['top1']

    values, done, total = {}, 0, len(shots) * draws + 1
    for shot in shots:
        values[str(shot)] = []
        for draw in range(draws):
            values[str(shot)].append(both(draw_labelled(train_y.cpu(), shot, draw, seed)))
            done += 1
            if progress:
                progress(done, total)
    values[ALL] = [both(slice(None))]
    if progress:
        progress(total, total)
    return {
        name: {shot: mean_and_sd([pair[column] for pair in pairs]) for shot, pairs in values.items()}
        for column, name in enumerate(('knn', 'linear'))
    }
