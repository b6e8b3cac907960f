"""Distances between paired views, and the alignment and uniformity of Wang & Isola (ICML 2020)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import global_mean
from mmkernel.kernels.engine import Pairs, to_sphere, unit_rows

REDUCTIONS = ('sample', 'element')


def squared_distance(x: Tensor, y: Tensor, reduction: str = 'sample') -> Tensor:
    """'sample': mean_i ||x_i - y_i||^2;  'element': that divided by q, as most published code has it.

    ``x``, ``y``: (..., q), any points of R^q. Returns a scalar over this rank's rows.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is 'sample' (mean of ||x-y||^2) or 'element' (that over q), got {reduction!r}.")
    mean = F.mse_loss(x, y)
    return mean if reduction == 'element' else mean * x.shape[-1]


def alignment(x: Tensor, y: Tensor, exponent: float = 2.0, normalize: bool = False) -> Tensor:
    """mean_i ||x_i - y_i||^exponent of (B, q) points on the sphere (``normalize``: of raw rows)."""
    if normalize:
        x, y = unit_rows(x), unit_rows(y)
    return (x - y).norm(dim=-1).pow(exponent).mean()


def uniformity(z: Tensor, scale: float = 2.0, normalize: bool = False) -> Tensor:
    """log mean_{i<j} exp(-scale ||z_i - z_j||^2) of (B, q) points on the sphere (``normalize``: of raw rows).

    The logarithm of the U-statistic of ``RBFKernel(scale)``; on normalised rows ``kernel_energy`` gives the same value
    over all ranks and with its own backward.
    """
    if normalize:
        z = unit_rows(z)
    if z.shape[0] < 2:
        raise ValueError(f'Uniformity is a statistic of pairs: expected at least 2 rows, got {z.shape[0]}.')
    return torch.pdist(z).pow(2).mul(-scale).exp().mean().log()


def paired_distance(x: Tensor, y: Tensor, pairs: Pairs | None = None, reduction: str = 'sample') -> Tensor:
    """mean over pairs (i, j) of mean_n ||x^_in - y^_jn||^2, rows normalised here, over the rows of all ranks.

    ``x``: (V, B, q), ``y``: (G, B, q) raw rows. ``reduction='element'`` divides by q. Raises where there is no pair.
    """
    pairs = all_pairs(x, y) if pairs is None else pairs
    check_pairs(pairs, 'align')
    if x is y:
        return to_sphere(x, pairs, reduction)[1]
    distance = global_mean(mean_square(unit_rows(x), unit_rows(y), pairs))
    return distance if reduction == 'element' else distance * x.shape[-1]


def mean_square(x: Tensor, y: Tensor, pairs: Pairs) -> Tensor:
    """mean over pairs and all entries of (x_i - y_j)^2: (V, B, q), (G, B, q) -> (); 0 without a pair."""
    if not pairs:
        return x.new_zeros(())
    same, x = x is y, x.unbind()  # once, so that backward stacks once
    y = x if same else y.unbind()
    squares = [F.mse_loss(x[i], y[j]) for i, j in pairs]
    return squares[0] if len(squares) == 1 else torch.stack(squares).mean()


def every_other(x: Tensor, y: Tensor) -> Pairs:
    """All (i of x, j of y), i != j: position i of both stands for one view."""
    return [(i, j) for i in range(len(x)) for j in range(len(y)) if i != j]


def all_pairs(x: Tensor, y: Tensor) -> Pairs:
    """``every_other``; of one tensor, whose distances are symmetric, each two views once."""
    return [(i, j) for i, j in every_other(x, y) if x is not y or i < j]


def mean_over_pairs(losses: list[Tensor]) -> Tensor:
    """The mean of one scalar per pair of views; ValueError where there is no pair."""
    check_pairs(losses)
    return torch.stack(losses).mean()


def check_pairs(pairs: Sequence, verb: str = 'compare') -> None:
    """ValueError where there is no pair."""
    if not pairs:
        raise ValueError(
            f'No pair of views to {verb}: an objective of pairs needs at least two views, head(z1, z2) in a loop of your '
            'own. In a config, check the views of the data.'
        )
