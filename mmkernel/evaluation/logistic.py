"""Logistic regression on features by L-BFGS, for one strength of its penalty or many, on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.evaluation.inputs import as_split, scale_features
from mmkernel.evaluation.metrics import top_k


def logistic_regression(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    strength: float = 100.0,
    scaling: str = 'l2',
    max_iter: int = 3000,
    num_classes: int | None = None,
) -> dict[str, float]:
    """min_{W, b} sum_i CE(W x_i + b, y_i) + ||W||^2 / (2 strength): ``dict(top1=, top5=)`` in percent of the test images.

    ``strength`` is scikit-learn's C, as is the case of two classes: one vector w and a sigmoid. A convex problem, solved in
    float64, hence no seed. Classes that have no training image are never predicted. The defaults suit l2-normalised
    features with few labels as well as with all; raw pixels and random features gain as much from them as trained ones.
    """
    check_numbers(strength=strength)
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y, num_classes)
    train_x, test_x = scale_features(train_x, test_x, scaling)
    known, y = train_y.unique(return_inverse=True)
    if len(known) < 2:
        raise ValueError(
            f'all {len(train_y)} training images have label {int(train_y[0])}; expected at least 2 classes.'
        )
    y, columns = (y[:, None], 1) if len(known) == 2 else (y, len(known))
    (predict,) = logistic_path(train_x.double(), y, [1 / strength], columns, max_iter, tolerance=1e-6)
    margin = predict(test_x).cpu()
    logits = margin.new_full((len(test_x), classes), -torch.inf)
    logits[:, known.cpu()] = torch.cat([-margin, margin], dim=1) if columns == 1 else margin
    return top_k(logits, test_y.cpu())


def logistic_path(
    x: Tensor, y: Tensor, penalties: Sequence[float], num_classes: int, max_iter: int = 1000, tolerance: float = 1e-8
) -> Iterator[Callable[[Tensor], Tensor]]:
    """min_{W, b} sum_i CE(W x_i + b, y_i) + l2 ||W||^2 / 2 by L-BFGS for each l2: functions (M, d) -> (M, C) logits.

    ``y``: (N,) classes, or (N, C) of 1, 0, -1: then one binary problem per column, entries of -1 left out.
    ``penalties`` = 1 / scikit-learn's C; each solution is where the next one starts, so let them fall. The products run on
    the device and in the type of ``x``, L-BFGS itself (SciPy's) in float64 on the CPU, until no entry of the gradient of the
    mean loss exceeds ``tolerance``. A convex problem: no seed.
    """
    from scipy.optimize import minimize

    # Centred, b takes that up, and of size 1, so that neither the units of x nor a large l2 make the problem stiff.
    centre = x.mean(0)
    x = x - centre
    size = min(max(float(x.abs().mean()), 1e-12), 1e12)
    x /= size
    loss = _sigmoid_loss(y, x.dtype) if y.ndim == 2 else lambda logits: F.cross_entropy(logits, y, reduction='sum')
    W, b = np.zeros((num_classes, x.shape[1])), np.zeros((num_classes, 1))
    for l2 in penalties:
        l2 = l2 / size**2
        unit = np.sqrt(1 + l2 / len(x))  # V = W unit has a curvature of the order of N at any l2
        objective = _objective(x, loss, l2, unit, num_classes)
        # scaled by the number of images, so that the tolerances mean the same for small and large sets
        options = dict(maxiter=max_iter, ftol=1e-12, gtol=tolerance)
        flat = minimize(objective, np.hstack([W * unit, b]).ravel(), jac=True, method='L-BFGS-B', options=options).x
        W, b = flat.reshape(num_classes, -1)[:, :-1] / unit, flat.reshape(num_classes, -1)[:, -1:]
        weight, bias = (torch.as_tensor(part, dtype=x.dtype, device=x.device) for part in (W, b[:, 0]))
        yield lambda rows, weight=weight, bias=bias: ((rows.to(weight) - centre) / size) @ weight.T + bias


def _objective(
    x: Tensor, loss: Callable[[Tensor], Tensor], l2: float, unit: float, num_classes: int
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Flat parameters (W unit, b) -> (value, gradient), both divided by the number of images."""

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.as_tensor(flat, dtype=x.dtype, device=x.device).requires_grad_()
        rows = parameters.view(num_classes, -1)
        weight = rows[:, :-1] / unit
        value = (loss(x @ weight.T + rows[:, -1]) + 0.5 * l2 * weight.square().sum()) / len(x)
        (gradient,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), gradient.double().cpu().numpy()

    return value_and_gradient


def _sigmoid_loss(targets: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    counted, wanted = (targets != -1).to(dtype), (targets == 1).to(dtype)
    return lambda logits: F.binary_cross_entropy_with_logits(logits, wanted, counted, reduction='sum')
