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
        options = dict(maxiter=max_iter, ftol=1e-12, gtol=1e-8)
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
