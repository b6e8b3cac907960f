"""Support vector machines on a few images per class: the low-shot benchmark of VOC07."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from mmkernel.checks import check_distinct, check_numbers
from mmkernel.evaluation.average_precision import class_names, class_precisions
from mmkernel.evaluation.svm import COSTS, Progress, checked, fit_machine, require, side_by_side

SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)


def low_shot_svm(
    train_x: ArrayLike,
    train_y: ArrayLike,
    test_x: ArrayLike,
    test_y: ArrayLike,
    classes: Sequence[str] | None = None,
    shots: Sequence[int] = SHOTS,
    draws: int = 5,
    costs: Sequence[float] = COSTS,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> dict[str, dict]:
    """mAP of machines that see k positives and (C - 1) k negatives of each class, drawn anew ``draws`` times.

    Goyal et al., ICCV 2019, section 6.1, and its code: one C for all classes, the one with the best mean over draws *on
    the test set*; optimistic, but so are the published figures. Images of which the class is only a difficult object are
    not drawn. The draws depend on ``seed`` and the targets alone, so encoders are compared on the same images.

    Returns ``{'1': dict(mean=, sd=, values=[mAP of each draw], cost=), '2': ...}``.
    """
    from joblib import delayed

    classes = classes or getattr(train_y, 'classes', None)
    train_x, train_y, test_x, test_y = checked(train_x, train_y, test_x, test_y)
    names = class_names(classes, train_y.shape[1])
    check_numbers(costs=costs)
    check_numbers(shots=shots, draws=draws, whole=True)
    check_distinct(shots=shots)
    fewer = (len(names) - 1) * max(shots)
    require(names, train_y == 1, max(shots), 0, f'{max(shots)} positives per class')
    require(names, train_y != 0, 0, max(fewer, 1), f'{fewer} negatives per class')
    tasks = [
        delayed(_drawn_machines)(train_x, train_y, test_x, test_y, shot, draw, tuple(costs), seed)
        for shot in shots
        for draw in range(draws)
    ]
    found = [*side_by_side(tasks, jobs, progress)]
    return {str(shot): _best_cost(np.stack(found[k * draws : (k + 1) * draws]), costs) for k, shot in enumerate(shots)}


def _best_cost(maps: np.ndarray, costs: Sequence[float]) -> dict:
    """(draws, costs) -> the column with the best mean."""
    best = int(maps.mean(0).argmax())
    values = maps[:, best]
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return dict(mean=float(values.mean()), sd=spread, values=values.tolist(), cost=float(costs[best]))


def _drawn_machines(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    shot: int,
    draw: int,
    costs: tuple[float, ...],
    seed: int,
) -> np.ndarray:
    """(costs,) mAP of one draw."""
    scores = np.empty((len(costs), *test_y.shape))
    for k, target in enumerate(train_y.T):
        generator = np.random.default_rng((seed, shot, draw, k))
        rows = np.concatenate([
            generator.choice(np.flatnonzero(target == 1), shot, replace=False),
            generator.choice(np.flatnonzero(target == 0), (train_y.shape[1] - 1) * shot or 1, replace=False),
        ])  # fmt: skip
        for c, cost in enumerate(costs):
            scores[c, :, k] = fit_machine(train_x[rows], target[rows] == 1, cost, seed).decision_function(test_x)
    return np.array([np.mean([*class_precisions(test_y, score).values()]) for score in scores])
