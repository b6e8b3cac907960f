"""Linear support vector machines on cached features, one per class: VOC07 with all images, and with a few per class."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmkernel.checks import check_distinct, check_numbers
from mmkernel.datasets.draws import draw_per_class
from mmkernel.evaluation.inputs import as_features, as_targets
from mmkernel.evaluation.labels import aligned
from mmkernel.evaluation.metrics import class_names, class_precisions, mean_and_sd

COSTS = (1.0, 10.0, 100.0, *(2.0**-k for k in range(4, 20)))
"""The full list of the published code: three numbers from its command line, and 2^-4 ... 2^-19 always."""
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)

Progress = Callable[[int, int], None]


def voc_svm(
    train_x: ArrayLike,
    train_y: ArrayLike,
    test_x: ArrayLike,
    test_y: ArrayLike,
    classes: Sequence[str] | None = None,
    costs: Sequence[float] = COSTS,
    folds: int = 3,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> dict:
    """min_w ||w||^2 / 2 + C sum_i c_i max(0, 1 - y_i w.x_i)^2 per class, c = 2 for positives, 1 for others; mean of the APs.

    Goyal et al., Scaling and benchmarking self-supervised visual representation learning, ICCV 2019, section 6, with the
    numbers of its code: x / (||x|| + 1e-5); C per class by ``folds``-fold cross-validated average precision over
    ``costs``, refit on all; scikit-learn's dual solver with tol 1e-4 and at most 2 000 passes.
    Features (N, d); targets (N, C): 1 there, 0 not there, -1 there only as a difficult object, which is a negative in
    training and left out in the test. AP is the all-points one; ``mAP_11`` the one of 2007.

    Returns ``dict(mAP=, mAP_11=, ap={class: percent}, cost={class: C})``. ValueError if a class has fewer than ``folds``
    positive or negative training images. ``seed`` orders the coordinates of the solver.
    """
    from joblib import delayed

    classes = classes or getattr(train_y, 'classes', None)
    train_x, train_y, test_x, test_y = _targets_and_unit_rows(train_x, train_y, test_x, test_y)
    names = class_names(classes, train_y.shape[1])
    positive = train_y == 1
    check_numbers(costs=costs)
    _require_images(names, positive, folds, folds, f'{folds}-fold cross-validation')
    tasks = [delayed(_chosen_machine)(train_x, labels, test_x, tuple(costs), folds, seed) for labels in positive.T]
    scores, chosen = np.empty(test_y.shape), {}
    for k, (cost, score) in enumerate(_in_threads(tasks, jobs, progress)):
        scores[:, k], chosen[names[k]] = score, cost
    ap = class_precisions(test_y, scores, names)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about classes without a test image: said once already
        eleven = class_precisions(test_y, scores, names, points='11')
    return dict(mAP=float(np.mean([*ap.values()])), mAP_11=float(np.mean([*eleven.values()])), ap=ap, cost=chosen)


def _chosen_machine(
    train_x: np.ndarray, labels: np.ndarray, test_x: np.ndarray, costs: tuple[float, ...], folds: int, seed: int
) -> tuple[float, np.ndarray]:
    """(C of the best cross-validated AP, the first of equals; scores of the test images after a refit on all)."""
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    search = GridSearchCV(
        _machine(seed), dict(C=list(costs)), scoring='average_precision', cv=StratifiedKFold(folds), error_score='raise'
    )
    search.fit(train_x, np.where(labels, 1, -1))
    return search.best_params_['C'], search.decision_function(test_x)


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
    train_x, train_y, test_x, test_y = _targets_and_unit_rows(train_x, train_y, test_x, test_y)
    names = class_names(classes, train_y.shape[1])
    check_numbers(costs=costs)
    check_numbers(shots=shots, draws=draws, whole=True)
    check_distinct(shots=shots)
    fewer = (len(names) - 1) * max(shots)
    _require_images(names, train_y == 1, max(shots), 0, f'{max(shots)} positives per class')
    _require_images(names, train_y != 0, 0, max(fewer, 1), f'{fewer} negatives per class')
    tasks = [
        delayed(_drawn_machines)(train_x, train_y, test_x, test_y, shot, draw, tuple(costs), seed)
        for shot in shots
        for draw in range(draws)
    ]
    found = [*_in_threads(tasks, jobs, progress)]
    scores = np.reshape(found, (len(shots), draws, len(costs)))
    best = scores.mean(1).argmax(1)  # of equal means the first
    return {
        str(shot): dict(mean_and_sd(scores[k, :, best[k]].tolist()), cost=float(costs[best[k]]))
        for k, shot in enumerate(shots)
    }


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
    counts = shot, (train_y.shape[1] - 1) * shot or 1  # of positives and of negatives
    for k, target in enumerate(train_y.T):
        rng, clear = np.random.default_rng((seed, shot, draw, k)), np.flatnonzero(target != -1)
        drawn = draw_per_class(
            target[clear] == 0,
            lambda negative, n: counts[negative],
            lambda negative, members, k, rng=rng: rng.choice(members, k, replace=False),
        )
        rows = clear[drawn]
        for c, cost in enumerate(costs):
            machine = _machine(seed, C=cost).fit(train_x[rows], np.where(target[rows] == 1, 1, -1))
            scores[c, :, k] = machine.decision_function(test_x)
    return np.array([np.mean([*class_precisions(test_y, score).values()]) for score in scores])


def _machine(seed: int, **cost: float) -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(class_weight={1: 2, -1: 1}, dual=True, tol=1e-4, max_iter=2000, random_state=seed, **cost)


def _in_threads(tasks: list, jobs: int, progress: Progress | None) -> Iterator:
    """Results of joblib's tasks in their order, ``jobs`` at a time. In threads: the solver runs without Python's lock."""
    from joblib import Parallel
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # large C stop at the 2 000 passes of the protocol
        for done, result in enumerate(Parallel(jobs, prefer='threads', return_as='generator')(tasks), 1):
            if progress:
                progress(done, len(tasks))
            yield result


def _targets_and_unit_rows(
    train_x: ArrayLike, train_y: ArrayLike, test_x: ArrayLike, test_y: ArrayLike
) -> tuple[np.ndarray, ...]:
    """x / (||x|| + 1e-5) in float64, and (N, C) targets that fit them; ValueError otherwise."""
    train_y, test_y = aligned(train_y, test_y)
    features, targets = [], []
    for x, y, name in ((train_x, train_y, 'train'), (test_x, test_y, 'test')):
        x = as_features(x, f'{name} features').double().cpu().numpy()
        features.append(x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5))
        targets.append(as_targets(y, len(x), f'{name} targets').cpu().numpy())
    (train_x, test_x), (train_y, test_y) = features, targets
    if train_x.shape[1] != test_x.shape[1] or train_y.shape[1] != test_y.shape[1]:
        raise ValueError(
            f'train features and targets have widths {train_x.shape[1]} and {train_y.shape[1]}, those of the test '
            f'{test_x.shape[1]} and {test_y.shape[1]}; both must come from the same encoder and list of classes.'
        )
    return train_x, train_y, test_x, test_y


def _require_images(names: list[str], chosen: np.ndarray, inside: int, outside: int, what: str) -> None:
    """ValueError naming the classes with fewer than ``inside`` chosen or ``outside`` other training images."""
    counts = chosen.sum(0)
    short = [
        f'{name} ({count})'
        for name, count in zip(names, counts, strict=True)
        if count < inside or len(chosen) - count < outside
    ]
    if short:
        raise ValueError(
            f'{what} needs more training images than these classes have (in brackets: positives, difficult ones not '
            f'counted): {", ".join(short)}. Use fewer folds or shots, or leave them out with the `classes` of the source.'
        )
