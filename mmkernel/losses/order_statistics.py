"""Goodness of fit of samples to N(0, 1) by their order statistics, for each column by itself.

Phi is the distribution function of N(0, 1), phi its density, x_(1) <= ... <= x_(N) a column in order, Z and Z' draws of
N(0, 1). On W ranks each one sorts K/W columns of all rows: N K / W numbers travel there, and their gradients back.

Shapes: B local rows, N = B W rows of all ranks, K columns. Gradients as ``mmkernel.distributed`` rules.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.special import erfcx, log_ndtr, ndtr, ndtri

from mmkernel.checks import check_numbers, check_words
from mmkernel.distributed import (
    check_equal_rows,
    columns_to_rows,
    gather_rows_with_gradient,
    rows_to_columns,
    world_size,
)
from mmkernel.kernels.layouts import refuse_second_derivative
from mmkernel.losses.precision import full_precision

TAILS = ('exact', 'fitted')


@full_precision
def cramer(x: Tensor) -> Tensor:
    """int (F_N - Phi)^2 dx = mean_n E|x_n - Z| - (1/2) mean_nm |x_n - x_m| - (1/2) E|Z - Z'|:  (..., B, K) -> (..., K).

    Cramer, 1928; half the energy distance of Szekely & Rizzo, 2013. E|x - Z| = x (2 Phi(x) - 1) + 2 phi(x) and
    E|Z - Z'| = 2 / sqrt(pi).
    """
    s, index = in_order(x)
    N = len(index)
    to_normal = s * (2 * ndtr(s) - 1) + (s.square() / -2).exp() * math.sqrt(2 / math.pi)
    between = s * ((2 * index - N - 1) / N)  # half of mean_m |x_n - x_m|, in the mean over n
    return of_all_columns((to_normal - between).mean(-2) - 1 / math.sqrt(math.pi), x)


@full_precision
def cramer_von_mises(x: Tensor) -> Tensor:
    """mean_i ((2i - 1) / 2N - Phi(x_(i)))^2:  (..., B, K) -> (..., K). Without the 1 / 12 N^2 of the textbooks."""
    s, index = in_order(x)
    return of_all_columns((ndtr(s) - (index - 0.5) / len(index)).square().mean(-2), x)


@full_precision
def watson(x: Tensor) -> Tensor:
    """``cramer_von_mises`` less (mean_n Phi(x_n) - 1/2)^2:  (..., B, K) -> (..., K).

    Watson, Biometrika 1961: the same for Phi(x) and for Phi(x) + c modulo 1.
    """
    s, index = in_order(x)
    p = ndtr(s)
    gap = (p - (index - 0.5) / len(index)).square().mean(-2)
    return of_all_columns(gap - (p.mean(-2) - 0.5).square(), x)


@full_precision
def anderson_darling(x: Tensor, tail: str = 'exact') -> Tensor:
    """-N - mean_i (2i - 1) [ log Phi(x_(i)) + log(1 - Phi(x_(N+1-i))) ]:  (..., B, K) -> (..., K).

    Anderson & Darling, 1952. ``tail``: the logarithms, and their slopes, are 'exact' in both tails; 'fitted', for parity
    with LeJEPA's code, takes phi(t) / (1 - Phi(t)) = (0.656 t + 0.344 t^2 + 5.334)^1/2 beyond t = |x| = 3. The
    constants are those of Borjesson & Sundberg, 1979, whose root is over the last two terms alone: it is 2 % too small
    at t = 3, 24 % at t = 6.
    """
    check_words(tail=(tail, TAILS))
    s, index = in_order(x)
    log_phi = _LogPhi.apply if tail == 'exact' else _fitted_log_phi
    logs = log_phi(s) + log_phi(-s.flip(-2))
    return of_all_columns(-((2 * index - 1) * logs).mean(-2) - len(index), x)


@full_precision
def wasserstein(x: Tensor, clamp: float = 0.0, quantiles: Tensor | None = None) -> Tensor:
    """mean_i (x_(i) - Phi^-1(i / (N + 1)))^2:  (..., B, K) -> (..., K).

    ``clamp``: levels are kept in [clamp, 1 - clamp]. ``quantiles``: (N,) ascending ones to use instead.
    """
    check_numbers('wasserstein', zero=True, most=0.5, clamp=clamp)
    s, index = in_order(x)
    if quantiles is None:
        quantiles = _normal_quantiles(len(index), clamp, x.dtype, x.device)
    return of_all_columns((s - quantiles[:, None]).square().mean(-2), x)


def count_rows(x: Tensor) -> int:
    """N of (..., B, K). ValueError for one row, and where the ranks' B differ."""
    N = x.shape[-2] * world_size()
    if N < 2:
        raise ValueError(
            f'A batch of {N} image says nothing about a distribution; at least 2 are needed. '
            'Raise train_dataloader.batch_size.'
        )
    check_equal_rows(x.shape[-2])
    return N


def in_order(x: Tensor) -> tuple[Tensor, Tensor]:
    """x_(i) of the rows of all ranks, for this rank's columns, and i = 1 ... N.

    (..., B, K) -> (..., N, ceil(K / W)), (N, 1). The last ranks may have columns of zeros, which
    ``of_all_columns`` drops.
    """
    index = torch.arange(1, count_rows(x) + 1, dtype=x.dtype, device=x.device)[:, None]
    x = x if world_size() == 1 else _SomeColumns.apply(x)
    return x.sort(dim=-2).values, index


def of_all_columns(statistic: Tensor, x: Tensor) -> Tensor:
    """What each rank found for its columns, (..., ceil(K / W)) -> (..., K), for projections x (..., B, K)."""
    if world_size() == 1:
        return statistic
    return gather_rows_with_gradient(statistic.movedim(-1, 0))[: x.shape[-1]].movedim(0, -1)


class _SomeColumns(torch.autograd.Function):
    """``rows_to_columns`` whose backward brings the gradients to the ranks that have the rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.columns = x.shape[-1]
        return rows_to_columns(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return columns_to_rows(upstream, ctx.columns)


class _LogPhi(torch.autograd.Function):
    """log Phi(x), with the slope phi / Phi = sqrt(2 / pi) / erfcx(-x / sqrt 2): that of torch is wrong below x = -100."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return log_ndtr(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        refuse_second_derivative()
        (x,) = ctx.saved_tensors
        return upstream * (math.sqrt(2 / math.pi) / erfcx(x * -math.sqrt(0.5)))


def _fitted_log_phi(x: Tensor) -> Tensor:
    t = x.abs().clamp_min(3)
    log_tail = (t.square() + math.log(2 * math.pi)) / -2 - (t * (0.656 + 0.344 * t) + 5.334).log() / 2
    outside = torch.where(x < 0, log_tail, torch.log1p(-log_tail.exp()))
    return torch.where(x.abs() > 3, outside, _LogPhi.apply(x.clamp(-3, 3)))


@lru_cache(maxsize=8)
def _normal_quantiles(N: int, clamp: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(N,) Phi^-1(i / (N + 1)), made once in float64."""
    levels = torch.arange(1, N + 1, dtype=torch.float64) / (N + 1)
    return ndtri(levels.clamp(clamp, 1 - clamp)).to(dtype).to(device, non_blocking=True)
