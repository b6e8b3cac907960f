"""Linear support vector machines on cached features, one per class: VOC07 with all images, and with a few per class."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmkernel.checks import check_distinct, check_numbers
from mmkernel.datasets.draws import draw_per_class
from mmkernel.evaluation.inputs import as_split
from mmkernel.evaluation.metrics import class_names, class_precisions, mean_and_sd, mean_average_precision

COSTS = (1.0, 10.0, 100.0, *(2.0**-k for k in range(4, 20)))
"""The list of the published code: three numbers from its command line, then 2^-4 ... 2^-19."""
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

    Figures of the papers since are mostly VISSL's, whose recipe is another: costs .01, .1, ..., 1000, images squashed to 224 x 224
    (bilinear), and the last feature map pooled to 2 x 2 (8192 numbers). The features here are the encoder's own (2048 numbers of a
    ResNet-50), by default of the middle 224 of 256 (bicubic).

    Returns ``dict(mAP=, mAP_11=, ap={class: percent}, cost={class: C})``. ``seed`` orders the coordinates of the solver.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    train_x, train_y, test_x, test_y, names = _checked(train_x, train_y, test_x, test_y, classes)
    positive = train_y == 1
    check_numbers(costs=costs)
    _require_images(names, positive, folds, folds, f'{folds}-fold cross-validation')

    def chosen_machine(k: int) -> tuple[float, np.ndarray]:
        """(C of the best cross-validated AP, the first of equals; scores of the test images after a refit on all)."""
        grid = dict(scoring='average_precision', cv=StratifiedKFold(folds), error_score='raise')
        search = GridSearchCV(_machine(seed), dict(C=list(costs)), **grid).fit(train_x, np.where(positive[:, k], 1, -1))
        return float(search.best_params_['C']), search.decision_function(test_x)

    chosen, scores = zip(*_in_threads(chosen_machine, [(k,) for k in range(len(names))], jobs, progress), strict=True)
    scores = np.stack(scores, 1)
    ap, eleven = class_precisions(test_y, scores, names), mean_average_precision(test_y, scores, '11', warn=False)
    cost = dict(zip(names, chosen, strict=True))
    return dict(mAP=float(np.mean([*ap.values()])), mAP_11=eleven, ap=ap, cost=cost)


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
    """mAP of machines trained on k positives and (C - 1) k negatives of each class, in ``draws`` independent draws.

    Goyal et al., ICCV 2019, section 6.1, and its code: one C for all classes, with the best mean over draws *on the test
    set*: optimistic, as the published figures are. Difficult objects are not drawn. The draws depend on ``seed`` and the
    targets alone, so encoders are compared on the same images.

    Returns ``{'1': dict(mean=, sd=, values=[mAP of each draw], cost=), '2': ...}``.
    """
    train_x, train_y, test_x, test_y, names = _checked(train_x, train_y, test_x, test_y, classes)
    check_numbers(costs=costs)
    check_numbers(shots=shots, draws=draws, whole=True)
    check_distinct(shots=shots)
    fewer = (len(names) - 1) * max(shots)
    _require_images(names, train_y == 1, max(shots), 0, f'{max(shots)} positives per class')
    _require_images(names, train_y != 0, 0, max(fewer, 1), f'{fewer} negatives per class')

    def drawn_machines(shot: int, draw: int) -> np.ndarray:
        """(costs,) mAP of one draw."""
        scores = np.empty((len(costs), *test_y.shape))
        counts = shot, (len(names) - 1) * shot or 1  # of positives and of negatives
        for k, target in enumerate(train_y.T):
            rng, clear = np.random.default_rng((seed, shot, draw, k)), np.flatnonzero(target != -1)
            drawn = draw_per_class(
                target[clear] == 0,
                lambda negative, n: counts[negative],
                lambda negative, members, k, rng=rng: rng.choice(members, k, replace=False),
            )
            x, y = train_x[clear[drawn]], np.where(target[clear[drawn]] == 1, 1, -1)
            for c, cost in enumerate(costs):
                scores[c, :, k] = _machine(seed, C=cost).fit(x, y).decision_function(test_x)
        return np.array([mean_average_precision(test_y, score) for score in scores])

    tasks = [(shot, draw) for shot in shots for draw in range(draws)]
    scores = np.reshape([*_in_threads(drawn_machines, tasks, jobs, progress)], (len(shots), draws, len(costs)))
    best = scores.mean(1).argmax(1)  # of equal means the first
    return {
        str(shot): dict(mean_and_sd(scores[k, :, best[k]].tolist()), cost=float(costs[best[k]]))
        for k, shot in enumerate(shots)
    }


def _machine(seed: int, **cost: float) -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(class_weight={1: 2, -1: 1}, dual=True, tol=1e-4, max_iter=2000, random_state=seed, **cost)


def _in_threads(work: Callable, tasks: list[tuple], jobs: int, progress: Progress | None) -> Iterator:
    """``work(*task)`` in the order of ``tasks``, ``jobs`` at a time, in threads: the solver releases Python's lock."""
    from joblib import Parallel, delayed
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # with large C the protocol stops it at 2 000 passes
        results = Parallel(jobs, prefer='threads', return_as='generator')(delayed(work)(*task) for task in tasks)
        for done, result in enumerate(results, 1):
            if progress:
                progress(done, len(tasks))
            yield result


def _checked(
    train_x: ArrayLike, train_y: ArrayLike, test_x: ArrayLike, test_y: ArrayLike, classes: Sequence[str] | None
) -> tuple:
    """x / (||x|| + 1e-5) in float64, their (N, C) targets, and the name of each class."""
    classes = classes or getattr(train_y, 'classes', None)
    *data, count = as_split(train_x, train_y, test_x, test_y, targets=True)
    train_x, train_y, test_x, test_y = (each.cpu().numpy() for each in data)
    x = (each.astype(np.float64) for each in (train_x, test_x))
    train_x, test_x = (rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5) for rows in x)
    return train_x, train_y, test_x, test_y, class_names(classes, count)


def _require_images(names: list[str], chosen: np.ndarray, inside: int, outside: int, what: str) -> None:
    """ValueError naming the classes with fewer than ``inside`` chosen or ``outside`` other training images."""
    counts = zip(names, chosen.sum(0), strict=True)
    short = [f'{name} ({n})' for name, n in counts if n < inside or len(chosen) - n < outside]
    if short:
        raise ValueError(
            f'{what} needs more training images than these classes have (in brackets: positives, difficult ones not '
            f'counted): {", ".join(short)}. Use fewer folds or shots, or leave them out with the `classes` of the source.'
        )
