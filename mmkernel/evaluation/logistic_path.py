"""Logistic regression for many strengths of its penalty, on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def logistic_path(
    x: Tensor, y: Tensor, penalties: Sequence[float], num_classes: int, max_iter: int = 1000
) -> Iterator[Callable[[Tensor], Tensor]]:
    """min_{W, b} sum_i CE(W x_i + b, y_i) + l2 ||W||^2 / 2 by L-BFGS for each l2: functions (M, d) -> (M, C) logits.

    ``y``: (N,) classes, or (N, C) of 1, 0, -1: then one binary problem per column, entries of -1 left out.
    ``penalties`` = 1 / scikit-learn's C; each solution is where the next one starts, so let them fall. The products run on
    the device and in the type of ``x``, L-BFGS itself (SciPy's) in float64 on the CPU. A convex problem: no seed.
    """
    from scipy.optimize import minimize

    centre = x.mean(0)  # b takes that up; L-BFGS needs far fewer steps
    x = x - centre
    loss = _sigmoid_loss(y, x.dtype) if y.ndim == 2 else lambda logits: F.cross_entropy(logits, y, reduction='sum')
    flat = np.zeros(num_classes * (x.shape[1] + 1))
    for l2 in penalties:
        objective = _objective(x, loss, l2, num_classes)
        # scaled by the number of images, so that the tolerances mean the same for small and large sets
        flat = minimize(
            objective, flat, jac=True, method='L-BFGS-B', options=dict(maxiter=max_iter, ftol=1e-9, gtol=1e-6)
        ).x
        weight, bias = _unpack(torch.as_tensor(flat, dtype=x.dtype, device=x.device), num_classes)
        yield lambda rows, weight=weight, bias=bias: (rows.to(weight) - centre) @ weight.T + bias


def _objective(
    x: Tensor, loss: Callable[[Tensor], Tensor], l2: float, num_classes: int
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Flat parameters -> (value, gradient), both divided by the number of images."""

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.as_tensor(flat, dtype=x.dtype, device=x.device).requires_grad_()
        weight, bias = _unpack(parameters, num_classes)
        value = (loss(x @ weight.T + bias) + 0.5 * l2 * weight.square().sum()) / len(x)
        (gradient,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), gradient.double().cpu().numpy()

    return value_and_gradient


def _unpack(flat: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    rows = flat.view(num_classes, -1)
    return rows[:, :-1], rows[:, -1]


def _sigmoid_loss(targets: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    counted, wanted = (targets != -1).to(dtype), (targets == 1).to(dtype)
    return lambda logits: F.binary_cross_entropy_with_logits(logits, wanted, counted, reduction='sum')
