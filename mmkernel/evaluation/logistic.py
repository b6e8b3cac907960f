"""Logistic regression on features by L-BFGS, for one strength of its penalty or many, and the benchmark with few labels."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.datasets.draws import draw_per_class
from mmkernel.evaluation.inputs import as_split, scale_features
from mmkernel.evaluation.knn import weighted_knn
from mmkernel.evaluation.metrics import mean_and_sd, top_k


def logistic_path(
    x: Tensor, y: Tensor, penalties: Sequence[float], num_classes: int, max_iter: int = 1000, tolerance: float = 1e-8
) -> Iterator[Callable[[Tensor], Tensor]]:
    """min_{W, b} sum_i CE(W x_i + b, y_i) + l2 ||W||^2 / 2 by L-BFGS for each l2: functions (M, d) -> (M, C) logits.

    ``y``: (N,) classes, or (N, C) of 1, 0, -1: then one binary problem per column, entries of -1 left out.
    ``penalties`` = 1 / scikit-learn's C; give them falling, as each solution starts from the one before. Products run on the
    device and in the type of ``x``; L-BFGS itself is SciPy's, in float64 on the CPU, until no entry of the gradient of the
    mean loss exceeds ``tolerance``. The problem is convex: no seed.
    """
    from scipy.optimize import minimize

    if y.ndim == 2:
        counted, wanted = (y != -1).to(x.dtype), (y == 1).to(x.dtype)
        loss = lambda z: F.binary_cross_entropy_with_logits(z, wanted, counted, reduction='sum')  # noqa: E731
    else:
        loss = lambda z: F.cross_entropy(z, y, reduction='sum')  # noqa: E731
    # W lives on the principal axes of x (it is 0 elsewhere). There the curvature is about s^2 + l2, so V = W sqrt(s^2 + l2)
    # makes a problem that is well conditioned even where the features of all images are alike.
    N, centre = len(x), x.mean(0)
    x = x - centre
    _, s, axes = torch.linalg.svd(torch.linalg.qr(x, mode='r').R if N > x.shape[1] else x, full_matrices=False)
    x, s = x @ axes.T, s.clamp_min(1e-6 * float(s[0]) + 1e-18)
    one, W = x.new_ones(1), x.new_zeros(num_classes, len(s) + 1)  # the last column is the bias
    for l2 in penalties:
        unit = torch.cat([((s.square() + l2) / N).sqrt(), one])
        rows, weights = torch.cat([x, one.expand(N, 1)], dim=1) / unit, l2 / unit.square()
        weights[-1] = 0

        def objective(flat: np.ndarray, rows: Tensor = rows, weights: Tensor = weights) -> tuple[float, np.ndarray]:
            """Value and gradient per image, so that tolerances do not depend on the size of the set."""
            V = torch.as_tensor(flat, dtype=x.dtype, device=x.device).view(num_classes, -1).requires_grad_()
            value = (loss(rows @ V.T) + 0.5 * (V.square() @ weights).sum()) / N
            (gradient,) = torch.autograd.grad(value, V)
            return float(value.detach()), gradient.double().flatten().cpu().numpy()

        options = dict(maxiter=max_iter, ftol=1e-12, gtol=tolerance)
        start = (W * unit).double().flatten().cpu().numpy()
        V = minimize(objective, start, jac=True, method='L-BFGS-B', options=options).x
        W = torch.as_tensor(V, dtype=x.dtype, device=x.device).view(num_classes, -1) / unit
        yield lambda rows, W=W[:, :-1] @ axes, b=W[:, -1]: (rows.to(W) - centre) @ W.T + b


def logistic_regression(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    strength: float = 100.0,
    scaling: str = 'l2',
    max_iter: int = 3000,
) -> dict[str, float]:
    """min_{W, b} sum_i CE(W x_i + b, y_i) + ||W||^2 / (2 strength): ``dict(top1=, top5=)`` in percent of the test images.

    ``strength`` is scikit-learn's C; as there, two classes have one vector w and a sigmoid. Solved in float64; the problem
    is convex: no seed. Classes without a training image are never predicted. The defaults suit l2-normalised features, with
    few labels and with all; raw pixels and random features gain as much from them as trained ones.
    """
    check_numbers(strength=strength)
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y)
    train_x, test_x = scale_features(train_x, test_x, scaling)
    known, y = train_y.unique(return_inverse=True)
    if len(known) < 2:
        raise ValueError(f'all {len(y)} training images have label {int(known)}; expected at least 2 classes.')
    y, columns = (y[:, None], 1) if len(known) == 2 else (y, len(known))
    (predict,) = logistic_path(train_x.double(), y, [1 / strength], columns, max_iter, tolerance=1e-6)
    margin = predict(test_x).cpu()
    logits = margin.new_full((len(test_x), classes), -torch.inf)
    logits[:, known.cpu()] = torch.cat([-margin, margin], dim=1) if columns == 1 else margin
    return top_k(logits, test_y.cpu())


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

    kNN takes as many neighbours as there are labels per class, at most ``k``: with more, images of other classes would have
    to vote, a disadvantage for encoders whose cosines are all alike. Linear is ``logistic_regression`` on features scaled by
    statistics of the whole training set, which use no label.
    """
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y)
    scaled, scaled_test = scale_features(train_x, test_x, scaling)
    occurring = len(train_y.unique())  # numbers of classes may have gaps

    def both(rows: Tensor | slice) -> tuple[float, float]:
        count = max(1, min(k, len(train_y[rows]) // occurring))
        vote = weighted_knn(train_x[rows], train_y[rows], test_x, test_y, count, temperature, classes)
        line = logistic_regression(scaled[rows], train_y[rows], scaled_test, test_y, strength, 'none')
        return vote[count]['top1'], line['top1']

    tasks = [(str(shot), draw_labelled(train_y.cpu(), shot, draw, seed)) for shot in shots for draw in range(draws)]
    tasks.append(('all', slice(None)))
    values: dict[str, list] = {shot: [] for shot, _ in tasks}
    for done, (shot, rows) in enumerate(tasks, 1):
        values[shot].append(both(rows))
        if progress:
            progress(done, len(tasks))
    return {
        name: {shot: mean_and_sd([pair[column] for pair in pairs]) for shot, pairs in values.items()}
        for column, name in enumerate(('knn', 'linear'))
    }
