"""The correlation matrix between two views. Shapes: V views, B local rows, N = B W rows of all ranks, q width, P pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import mean_over_ranks_with_gradient, world_size
from mmkernel.kernels.engine import Engine, diagonal_of, fused_whole, itself, pairwise
from mmkernel.kernels.products import product, promoted, sum_of
from mmkernel.kernels.sphere import Pairs
from mmkernel.losses.columns import standardised

_DUAL_FROM = 1.4  # q / N: two Gram matrices against one x'y


def correlation_terms(
    predicted: Tensor, target: Tensor | None, pairs: Pairs, eps: float = 1e-5, **options: str | None
) -> tuple[Tensor, Tensor]:
    """mean_(i,j) sum_k (C_kk - 1)^2  and  mean_(i,j) sum_{k != l} C_kl^2,  C = x'y / N of standardised x_i, y_j.

    Zbontar et al., Barlow Twins, ICML 2021. Columns are standardised over the rows of all ranks, variance + ``eps`` with
    divisor N. Two scalars of the global batch; gradients as ``mmkernel.distributed`` rules.

    Args:
        predicted, target: (V, B, q) and (G, B, q), this rank's rows, equal B on every rank; ``target`` None: ``predicted``.
        pairs: (i in predicted, j in target); where both are one tensor, i != j and each pair once.
        options: precision, layout, transport_dtype of ``mmkernel.kernels.engine.Engine``.
    """
    views = promoted(predicted) if target is None else torch.cat([promoted(predicted), promoted(target)])
    if target is not None:
        pairs = [(i, len(predicted) + j) for i, j in pairs]
    return fused_whole(_correlation_terms, views, tuple(pairs), eps, Engine(**options))


def _correlation_terms(views: Tensor, pairs: Pairs, eps: float, engine: Engine) -> tuple[Tensor, Tensor]:
    a = standardised(views, eps)
    rows, (_, B, q), N, P = a.unbind(), a.shape, a.shape[1] * world_size(), len(pairs)
    if N * _DUAL_FROM > q:
        C = [mean_over_ranks_with_gradient(product(rows[i].mT, rows[j], engine) / B) for i, j in pairs]
        diagonals, energy = [c.diagonal() for c in C], sum_of([_squares(c) for c in C]) / P
    else:  # ||x'y||^2 = <xx', yy'>
        diagonals = [mean_over_ranks_with_gradient((rows[i] * rows[j]).mean(0)) for i, j in pairs]
        energy = pairwise(a, _products, (tuple(pairs),), engine=engine, scale=1 / (P * N**2)).squeeze(0)
    on = sum_of([_squares(c, torch.ones_like(c)) for c in diagonals])
    return on if P == 1 else on / P, energy.sub(sum_of([_squares(c) for c in diagonals]), alpha=1 / P)


def _squares(c: Tensor, to: Tensor | None = None) -> Tensor:
    """||c - to||^2; to: 0."""
    return F.mse_loss(c, torch.zeros_like(c) if to is None else to, reduction='sum')


def _products(K: Tensor, first: int, columns: Tensor, pairs: tuple) -> tuple[Tensor, Tensor, Tensor]:
    """sum over pairs of sum_b K_i K_j, and its slopes: the Gram matrices of each view's partners, their diagonal q apart."""
    values = sum_of([(K[i] * K[j]).sum(-1) for i, j in pairs])[None]  # (1, b)
    partners = [[j for i, j in pairs if i == v] + [i for i, j in pairs if j == v] for v in range(len(K))]
    slope = torch.stack([sum_of([K[j] for j in of]) if of else torch.zeros_like(K[0]) for of in partners])
    return values, slope.masked_fill(itself(first, K.shape[1], columns), 0), diagonal_of(slope, first, columns)
