"""Variances, covariances and correlations of views: the terms of VICReg and of Barlow Twins, over the rows of all ranks.

||x'y||^2 = <xx', yy'>, so each costs the cheaper side of a Gram matrix, min(N q^2, N^2 q). The gradient of
a function of inner products of centred rows has column means 0, so none has to pass through the means of the rows.

Shapes: V views, B local rows, N = B W rows of all ranks, q width, P pairs. Gradients as ``mmkernel.distributed`` rules. Of
columns of all rows (``Engine.columns``) moments are known where the column is, and sums over columns are sums over ranks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.checks import check_words
from mmkernel.distributed import check_equal_rows, mean_over_ranks_with_gradient, sum_over_ranks_
from mmkernel.distributed.shards import all_rows, mean_of_entries, mean_over_all_rows_, total
from mmkernel.kernels.engine import Engine, Pairs, fused_whole, itself, pairwise
from mmkernel.kernels.layouts import refuse_second_derivative, sum_of
from mmkernel.losses.alignment import compared_pairs, mean_square
from mmkernel.losses.matrices import product
from mmkernel.losses.precision import full_precision

_DUAL_FROM = 1.4  # from this q / N on, two Gram matrices xx', yy' cost less than one x'y


@full_precision
def moment_terms(
    z: Tensor,
    pairs: Pairs | None = None,
    target_std: float = 1.0,
    eps: float = 1e-4,
    covariance: str = 'trained',
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """mean_pairs mean_n ||z_in - z_jn||^2 / q,  mean_v (1/q) sum_j max(0, std - sqrt(var_j + eps)),
    mean_v (1/q) sum_{i != j} C_ij^2.

    Bardes, Ponce and LeCun, VICReg, ICLR 2022. Moments are those of the rows of all ranks, with divisor N - 1. Three scalars of
    the global batch; gradients as ``mmkernel.distributed`` rules.

    Args:
        z: (V, B, q) this rank's rows, equal B on every rank.
        pairs: (i, j), each pair of views once (None: every two views); empty: the first term is 0.
        covariance: 'trained', 'value' without a gradient, or 'none': 0, without a Gram matrix.
        options: those of ``mmkernel.kernels.engine.Engine``.
    """
    check_words('moment_terms', covariance=(covariance, ('trained', 'value', 'none')))
    pairs = compared_pairs(z, z, pairs, needed=False)
    return fused_whole(_moment_terms, z, tuple(pairs), target_std, eps, covariance, Engine(**options))


def _moment_terms(
    z: Tensor, pairs: Pairs, target_std: float, eps: float, covariance: str, engine: Engine
) -> tuple[Tensor, Tensor, Tensor]:
    columns, V = engine.columns, len(z)
    q, N = columns or z.shape[2], all_rows(z, columns)
    x = centred(z, columns)
    var = column_variances(x, N - 1, columns)  # (V, q)
    invariance = mean_of_entries(mean_square(z, z, pairs), z, columns)
    variance = (target_std - (var + eps).sqrt()).relu().mean()
    variance = variance if columns is None else mean_of_entries(variance, z, columns)
    if covariance == 'none':
        return invariance, variance, z.new_zeros(())
    if covariance == 'value':
        x, var = x.detach(), var.detach()
    scale = 1 / (V * q * (N - 1) ** 2)
    if N > q and columns is None:  # C = x'x / (N - 1)
        energy = pairwise(x.mT, off_diagonal_squares, (False,), engine=engine, scale=scale, slope=2, sharded=True).sum()
    else:  # ||x'x||^2 = ||xx'||^2, and the diagonal of C is known
        energy = pairwise(x, off_diagonal_squares, (True,), engine=engine, scale=scale, slope=2).sum()
        squares = var.square().sum()
        energy = energy.sub(squares if columns is None else total(squares, columns), alpha=1 / (V * q))
    return invariance, variance, energy


def off_diagonal_squares(
    K: Tensor, first: int, columns: Tensor, diagonal: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """sum_j K_ij^2, and K off the diagonal; the diagonal is q times as large: separate, or (``diagonal`` False) left out."""
    beside = K.masked_fill(itself(first, K.shape[1], columns), 0)
    return (K if diagonal else beside).square().sum(-1), beside, diagonal_of(K, first, columns) if diagonal else None


def diagonal_of(K: Tensor, first: int, columns: Tensor) -> Tensor:
    """(V, b): K_ii of the rows of a block."""
    rows = columns[first : first + K.shape[1], None]
    return K.gather(-1, rows.expand(len(K), -1, -1)).squeeze(-1)


@full_precision
def correlation_terms(
    predicted: Tensor, target: Tensor | None = None, pairs: Pairs | None = None, eps: float = 1e-5, **options: Any
) -> tuple[Tensor, Tensor]:
    """mean_(i,j) sum_k (C_kk - 1)^2  and  mean_(i,j) sum_{k != l} C_kl^2,  C = x'y / N of standardised x_i, y_j.

    Zbontar et al., Barlow Twins, ICML 2021. Columns are standardised over the rows of all ranks, variance + ``eps`` with
    divisor N. Two scalars of the global batch; gradients as ``mmkernel.distributed`` rules.

    Args:
        predicted, target: (V, B, q) and (G, B, q), this rank's rows, equal B on every rank; ``target`` None: ``predicted``.
        pairs: (i in predicted, j in target); where both are one tensor, i != j and each pair once. None: every two views.
        options: those of ``mmkernel.kernels.engine.Engine``.
    """
    pairs = compared_pairs(predicted, predicted if target is None else target, pairs)
    views = predicted if target is None else torch.cat([predicted, target])
    if target is not None:
        pairs = [(i, len(predicted) + j) for i, j in pairs]
    return fused_whole(_correlation_terms, views, tuple(pairs), eps, Engine(**options))


def _correlation_terms(views: Tensor, pairs: Pairs, eps: float, engine: Engine) -> tuple[Tensor, Tensor]:
    a = _Standardised.apply(views, eps, engine.columns)
    columns, P = engine.columns, len(pairs)
    rows, (_, B, q), N = a.unbind(), a.shape, all_rows(a, columns)
    if N * _DUAL_FROM > q and columns is None:
        C = [mean_over_ranks_with_gradient(product(rows[i].mT, rows[j], engine) / B) for i, j in pairs]
        diagonals, energy = [c.diagonal() for c in C], sum_of([_squares(c) for c in C]) / P
    else:  # ||x'y||^2 = <xx', yy'>
        diagonals = [(rows[i] * rows[j]).mean(0) for i, j in pairs]
        diagonals = diagonals if columns is not None else [mean_over_ranks_with_gradient(c) for c in diagonals]
        energy = pairwise(a, _products, (tuple(pairs),), engine=engine, scale=1 / (P * N**2)).squeeze(0)
    on, squares = (sum_of([_squares(c, to) for c in diagonals]) for to in (1.0, 0.0))
    if columns is not None:
        on, squares = total(on, columns), total(squares, columns)
    return on if P == 1 else on / P, energy.sub(squares, alpha=1 / P)


def _squares(c: Tensor, to: float = 0.0) -> Tensor:
    """||c - to||^2."""
    return F.mse_loss(c, torch.full_like(c, to), reduction='sum')


def _products(K: Tensor, first: int, columns: Tensor, pairs: tuple) -> tuple[Tensor, Tensor, Tensor]:
    """sum over pairs of sum_b K_i K_j, and its slopes: the Gram matrices of each view's partners, the diagonals separately."""
    values = sum_of([(K[i] * K[j]).sum(-1) for i, j in pairs])[None]  # (1, b)
    partners = [[j for i, j in pairs if i == v] + [i for i, j in pairs if j == v] for v in range(len(K))]
    slope = torch.stack([sum_of([K[j] for j in of]) if of else torch.zeros_like(K[0]) for of in partners])
    return values, slope.masked_fill(itself(first, K.shape[1], columns), 0), diagonal_of(slope, first, columns)


def centred(z: Tensor, columns: int | None = None) -> Tensor:
    """z less its column means: (V, B, q) -> (V, B, q). Raises for N < 2, and where the ranks' B differ."""
    N = all_rows(z, columns)
    if N < 2:
        raise ValueError(
            f'A batch of {N} image has no variance; at least 2 are needed. Raise train_dataloader.batch_size.'
        )
    if columns is None:
        check_equal_rows(z.shape[1])
    return z - mean_over_all_rows_(z.detach().mean(1, keepdim=True), columns)


def column_variances(x: Tensor, divisor: int, columns: int | None = None) -> Tensor:
    """sum_n x_nj^2 / divisor of centred rows: (V, B, q) -> (V, q)."""
    return _ColumnVariances.apply(x, divisor, columns)


class _ColumnVariances(torch.autograd.Function):
    """As x.square().sum(1) / divisor, whose backward makes three copies of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, divisor: int, columns: int | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.divisor, ctx.columns = divisor, columns
        return _mean_squares(x, columns) * (all_rows(x, columns) / divisor)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        refuse_second_derivative()
        (x,), factor = ctx.saved_tensors, upstream * (2 / ctx.divisor)
        return x * (factor if ctx.columns is not None else sum_over_ranks_(factor))[:, None], None, None


class _Standardised(torch.autograd.Function):
    """(z - mean) / sqrt(var + eps) per column, var with divisor N: batch normalisation without affine parameters."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, eps: float, columns: int | None) -> Tensor:
        x = centred(z, columns)
        rstd = (_mean_squares(x, columns)[:, None] + eps).fmod_(torch.inf).rsqrt()  # an overflow becomes NaN, not 0
        a = x * rstd  # not in place: torch.compile of torch 2.11 then loses the gradient of what is returned
        ctx.save_for_backward(a, rstd)
        ctx.columns = columns
        return a

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """rstd (g - mean(g) - a mean(g a)), of which mean(g) is 0 here."""
        refuse_second_derivative()
        a, rstd = ctx.saved_tensors
        along = mean_over_all_rows_((g * a).mean(1, keepdim=True), ctx.columns)
        return torch.addcmul(g, a, along, value=-1).mul_(rstd), None, None


def _mean_squares(x: Tensor, columns: int | None) -> Tensor:
    """(V, q) means over the rows of all ranks of the squares of centred rows."""
    return mean_over_all_rows_(x.square().mean(1), columns)
