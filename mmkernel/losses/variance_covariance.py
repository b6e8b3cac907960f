"""Variance, covariance and invariance of views. Shapes: V views, B local rows, N = B W rows of all ranks, q width."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmkernel.distributed import global_mean, world_size
from mmkernel.kernels.engine import Engine, diagonal_of, fused_whole, itself, pairwise
from mmkernel.kernels.products import promoted
from mmkernel.kernels.sphere import Pairs, mean_square
from mmkernel.losses.columns import centred, column_variances


def moment_terms(
    z: Tensor, pairs: Pairs, target_std: float = 1.0, eps: float = 1e-4, covariance: str = 'trained', **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """mean_pairs mean_n ||z_in - z_jn||^2 / q,  mean_v (1/q) sum_j max(0, std - sqrt(var_j + eps)),
    mean_v (1/q) sum_{i != j} C_ij^2.

    Bardes, Ponce and LeCun, VICReg, ICLR 2022. Moments are those of the rows of all ranks, with divisor N - 1. Three scalars of
    the global batch; gradients as ``mmkernel.distributed`` rules.

    Args:
        z: (V, B, q) this rank's rows, equal B on every rank. Half precision is computed in float32.
        pairs: (i, j), each pair of views once; none: the first term is 0.
        covariance: 'trained', 'value' without a gradient, or 'none': 0, without a Gram matrix.
        options: those of ``mmkernel.kernels.engine.Engine``.
    """
    if covariance not in ('trained', 'value', 'none'):
        raise ValueError(f"moment_terms.covariance is 'trained', 'value' or 'none', got {covariance!r}.")
    return fused_whole(_moment_terms, promoted(z), tuple(pairs), target_std, eps, covariance, Engine(**options))


def _moment_terms(
    z: Tensor, pairs: Pairs, target_std: float, eps: float, covariance: str, engine: Engine
) -> tuple[Tensor, Tensor, Tensor]:
    (V, _, q), N = z.shape, z.shape[1] * world_size()
    x = centred(z)
    var = column_variances(x, N - 1)  # (V, q)
    invariance = global_mean(mean_square(z, z, pairs))
    variance = (target_std - (var + eps).sqrt()).relu().mean()
    if covariance == 'none':
        return invariance, variance, z.new_zeros(())
    if covariance == 'value':
        x, var = x.detach(), var.detach()
    scale = 1 / (V * q * (N - 1) ** 2)
    if N > q:  # C = x'x / (N - 1)
        energy = pairwise(x.mT, _squares, (False,), engine=engine, scale=scale, slope=2, sharded=True).sum()
    else:  # ||x'x||^2 = ||xx'||^2, and the diagonal of C is known
        energy = pairwise(x, _squares, (True,), engine=engine, scale=scale, slope=2).sum()
        energy = energy.sub(var.square().sum(), alpha=1 / (V * q))
    return invariance, variance, energy


def _squares(K: Tensor, first: int, columns: Tensor, diagonal: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """sum_j K_ij^2, and K beside the diagonal, which is q times its neighbours: apart, or (``diagonal`` False) left out."""
    beside = K.masked_fill(itself(first, K.shape[1], columns), 0)
    return (K if diagonal else beside).square().sum(-1), beside, diagonal_of(K, first, columns) if diagonal else None
