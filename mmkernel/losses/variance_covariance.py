"""Invariance, variance and covariance of several views in one pass, with the gradient of all three.

With centred columns x_j, s_j = sum_n x_nj^2 and K = XX', the gradient of a view's rows is

    c (K - diag K) X + X (c |x_n|^2 - c s_j + h_j) + k sum_partners (x - y):

one product, and one elementwise pass for the diagonals of both matrices, the hinge (h_j) and the invariance. The product is
made in forward, the pass in backward, where the upstream factors of the three terms are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import sum_over_ranks_, world_size
from mmkernel.kernels.gram import Engine, row_chunks
from mmkernel.losses.moments import NO_SECOND_DERIVATIVE, Moments, column_moments, second_moments

Pairs = list[tuple[int, int]]


def moment_terms(
    z: Tensor,
    pairs: Pairs,
    target_std: float = 1.0,
    eps: float = 1e-4,
    precision: str = 'auto',
    layout: str = 'auto',
    transport_dtype: str | None = None,
    covariance: str = 'trained',
) -> tuple[Tensor, Tensor, Tensor]:
    """mean_pairs mean_n ||z_in - z_jn||^2 / q,  mean_v (1/q) sum_j max(0, std - sqrt(var_j + eps)),
    mean_v (1/q) sum_{i != j} C_ij^2.

    Bardes, Ponce and LeCun, VICReg, ICLR 2022. Moments are those of the rows of all ranks, with divisor N - 1. Costs
    min(N q^2, N^2 q); see ``mmkernel.losses.moments``.

    Args:
        z: (V, B, q) this rank's rows, equal B on every rank. Half precision is computed in float32.
        pairs: (i, j), each pair of views once; none: the first term is 0.
        precision, layout, transport_dtype: as ``mmkernel.kernels.gram.Engine`` has them.
        covariance: 'trained', 'value' without a gradient, or 'none': 0, without a Gram matrix.

    Returns:
        Three scalars of the global batch; gradients as ``mmkernel.distributed`` rules, no second derivative.
    """
    z = z if z.dtype == torch.float64 else z.float()
    if covariance not in ('trained', 'value', 'none'):
        raise ValueError(f"moment_terms.covariance is 'trained', 'value' or 'none', got {covariance!r}.")
    engine = Engine(precision, layout, transport_dtype)
    return _MomentTerms.apply(z, _Terms(tuple(pairs), target_std, eps, engine, covariance))


@dataclass(frozen=True)
class _Terms:
    pairs: tuple[tuple[int, int], ...]
    target_std: float
    eps: float
    engine: Engine
    covariance: str

    def partners(self, v: int) -> list[int]:
        return [j for i, j in self.pairs if i == v] + [i for i, j in self.pairs if j == v]


@dataclass
class _Products:
    """What the covariance contributes to the gradient: (K - diag K) X of all views, and the diagonals."""

    rows: Tensor | None  # (V, B, q)
    scale: float = 1.0
    diagonals: list[Tensor] | None = None  # V x (B,), None where X'X was made: its diagonal is left out


class _MomentTerms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, terms: _Terms) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(z.device.type, enabled=False):
            moments = column_moments(z)
            covariance, ctx.products = _covariance(z, moments, terms, ctx.needs_input_grad[0])
            std = _deviation(moments, terms.eps)
            variance = F.relu(terms.target_std - std).mean()
            invariance = _invariance(z, terms.pairs)
        ctx.save_for_backward(z)
        ctx.terms, ctx.moments = terms, moments
        ctx.set_materialize_grads(False)
        return invariance.to(z.dtype), variance, covariance.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(f'moment_terms {NO_SECOND_DERIVATIVE}')
        (z,) = ctx.saved_tensors
        products, ctx.products = ctx.products, None  # handed over: the gradient is made in place
        with torch.autocast(z.device.type, enabled=False):
            if products is None:  # a second backward through a retained graph
                trained = ctx.terms.covariance == 'trained'
                products = _covariance(z, ctx.moments, ctx.terms, True)[1] if trained else _Products(None)
            return _gradient(z, ctx.terms, ctx.moments, products, upstream), None


def _covariance(z: Tensor, moments: Moments, terms: _Terms, need: bool) -> tuple[Tensor, _Products]:
    """mean over views of (1/q) sum_{i != j} C_ij^2, and what its gradient needs."""
    (V, _, q), N, need = z.shape, moments.N, need and terms.covariance == 'trained'
    if terms.covariance == 'none':
        return z.new_zeros(()), _Products(None)
    products = _Products(torch.empty_like(z, memory_format=torch.contiguous_format) if need else None)
    energy = torch.zeros((), dtype=torch.float64, device=z.device)
    diagonals = []
    for v in range(V):
        centred = z[v] - moments.mean[v]  # also what half precision needs where the mean is large
        found = second_moments(centred, terms.engine, products.rows[v] if need else None)
        del centred
        energy += found.energy
        if found.diagonal is not None:
            energy -= moments.squares[v].double().square().sum()
            diagonals.append(found.diagonal)
        products.scale = found.scale
    products.diagonals = diagonals or None
    return energy / (V * q * (N - 1) ** 2), products


def _deviation(moments: Moments, eps: float) -> Tensor:
    return (moments.squares / (moments.N - 1) + eps).sqrt()


def _invariance(z: Tensor, pairs: Pairs) -> Tensor:
    """mean over pairs of the mean square of z_i - z_j over the rows of all ranks; rows in working precision."""
    square = torch.zeros((), dtype=torch.float64, device=z.device)
    for i, j in pairs:
        for rows in row_chunks(z[0]):
            difference = z[i, rows] - z[j, rows]
            square += torch.linalg.vecdot(difference, difference).double().sum()
    return sum_over_ranks_(square) / (max(1, len(pairs)) * z[0].numel() * world_size())


def _gradient(
    z: Tensor, terms: _Terms, moments: Moments, products: _Products, upstream: tuple[Tensor | None, ...]
) -> Tensor:
    """The gradient at this rank's rows times W, in place on the products."""
    (V, _, q), N, W = z.shape, moments.N, world_size()
    of_invariance, of_variance, of_covariance = upstream
    gradient, c = products.rows, of_covariance
    if c is not None and gradient is not None:
        c = c * (4 * W / (V * q * (N - 1) ** 2))
    else:
        c, gradient = None, torch.zeros_like(z) if gradient is None else gradient.zero_()
    if of_invariance is not None:
        of_invariance = of_invariance * (2 * W / (N * q * max(1, len(terms.pairs))))
    std = _deviation(moments, terms.eps)
    for v in range(V):
        column = torch.zeros_like(std[v])  # (q,) the factor of centred rows
        if of_variance is not None:
            active = std[v] < terms.target_std
            column -= of_variance * (W / (V * q * (N - 1))) * torch.where(active, 1 / std[v], 0)
        apart = None
        if c is not None and products.diagonals is not None:
            column -= c * moments.squares[v]
            apart = c * products.diagonals[v]
        for rows in row_chunks(z[v]):
            g = gradient[v, rows]
            if c is not None:
                g.mul_(c * products.scale)
            centred = z[v, rows] - moments.mean[v]
            g.addcmul_(centred, column if apart is None else column + apart[rows, None])
            if of_invariance is not None:
                for j in terms.partners(v):
                    g.add_(torch.sub(z[v, rows], z[j, rows], out=centred).mul_(of_invariance))
    return gradient
