"""Tests of normality of one-dimensional projections: how far slices of a cloud of embeddings are from N(0, 1).

Every statistic is that of the rows of all ranks, for each slice by itself, and differentiable.

Shapes: V views, B local rows, N = B W rows of all ranks, q width, K slices, T knots.
Gradients as ``mmkernel.distributed`` rules.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Generator, Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.distributed import mean_over_ranks_with_gradient
from mmkernel.kernels.layouts import refuse_second_derivative, rows_at_a_time
from mmkernel.losses.covariance import centred, column_variances
from mmkernel.losses.order_statistics import (
    anderson_darling,
    count_rows,
    cramer,
    cramer_von_mises,
    wasserstein,
    watson,
)
from mmkernel.losses.precision import full_precision


def draw_slices(q: int, count: int, generator: Generator, like: Tensor) -> Tensor:
    """(q, ``count``) directions, uniform on the sphere of R^q, as columns: float32 draws where ``generator`` lives."""
    check_numbers(whole=True, width=q, slices=count)
    drawn = torch.randn(q, count, generator=generator, device=generator.device)
    return torch.nn.functional.normalize(drawn.to(like), dim=0)


@full_precision
def sliced(z: Tensor, slices: Tensor, statistic: str = 'epps_pulley', **options: Any) -> Tensor:
    """mean over slices a, and leading axes, of statistic(z a): (..., B, q) raw rows, (q, K) -> ().

    Nothing is centred or scaled. ``statistic``: one of ``STATISTICS``, with its ``options``.
    """
    check_words(statistic=(statistic, STATISTICS))
    return STATISTICS[statistic](z @ slices, **options).mean()


@full_precision
def epps_pulley(
    x: Tensor, knots: int = 17, t_max: float = 3.0, two_sided: bool = False, scale_by_rows: bool = True
) -> Tensor:
    """N sum_k w_k [ (mean_n cos t_k x_n - e_k)^2 + (mean_n sin t_k x_n)^2 ],  e_k = exp(-t_k^2 / 2).

    Epps & Pulley, Biometrika 1983, as summed by Balestriero & LeCun, LeJEPA, 2025: int |F_N^(t) - e(t)|^2 e(t) dt over
    [-t_max, t_max], F_N^ the characteristic function of the rows, by the trapezoid rule, whose weights are w_k / e_k.
    It is N times an MMD^2 with the kernel sum_k w_k cos(t_k (x - y)). Ranks exchange 2 K T numbers.
    (..., B, K) -> (..., K).

    Args:
        x: projections, this rank's rows, equal B on every rank.
        knots: T >= 2, equally spaced on [0, ``t_max``]; the other half has the same integral.
        two_sided: T knots on [-t_max, t_max] instead.
        scale_by_rows: False leaves the factor N out.
    """
    check_numbers('epps_pulley', whole=True, least=2, knots=knots)
    check_numbers('epps_pulley', t_max=t_max)
    N = count_rows(x)
    t, w, e = _knots(knots, t_max, two_sided, x.dtype, x.device)  # (T,)
    cos, sin = mean_over_ranks_with_gradient(_MeanWaves.apply(x, t)).movedim(1, -1)  # (..., K, T)
    statistic = ((cos - e).square() + sin.square()) @ w
    return statistic * N if scale_by_rows else statistic


STATISTICS: dict[str, Callable[..., Tensor]] = dict(
    epps_pulley=epps_pulley,
    cramer=cramer,
    cramer_von_mises=cramer_von_mises,
    watson=watson,
    anderson_darling=anderson_darling,
    wasserstein=wasserstein,
)


@full_precision
def center_scale_shape(
    z: Tensor,
    slices: Tensor,
    statistic: str = 'wasserstein',
    eps: float = 1e-6,
    scale_eps: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """mean mu_j^2,  mean (sigma_j + eps - 1)^2  and  ``sliced`` of (z - mu) / sg(sigma + eps).

    VISReg, 2026. mu and sigma (divisor N) are those of each column of each view; sg stops the gradient. ``scale_eps``:
    the eps of the second term where it is another. (V, B, q) raw rows and (q, K) slices -> three scalars.
    """
    mean = mean_over_ranks_with_gradient(z.mean(1, keepdim=True))  # (V, 1, q)
    variance = column_variances(centred(z), count_rows(z))  # (V, q)
    std = variance.clamp_min(torch.finfo(z.dtype).tiny).sqrt()  # a slope at 0 too
    x = (z - mean) / (std + eps).detach()[:, None]
    scale = std + ((eps if scale_eps is None else scale_eps) - 1)
    return mean.square().mean(), scale.square().mean(), sliced(x, slices, statistic, **options)


@lru_cache(maxsize=8)
def _knots(
    knots: int, t_max: float, two_sided: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """t, w and exp(-t^2 / 2), without t = 0, where the characteristic functions always agree."""
    t = torch.linspace(-t_max if two_sided else 0, t_max, knots, dtype=torch.float64)
    e = (-t.square() / 2).exp()
    w = e * (t[1] - t[0]) * (1 if two_sided else 2)
    w[-1] /= 2
    if two_sided:
        w[0] /= 2
    kept = t.abs() > 1e-9 * t_max
    return tuple(v[kept].to(dtype).to(device, non_blocking=True) for v in (t, w, e))


class _MeanWaves(torch.autograd.Function):
    """mean_n cos t_k x_n and mean_n sin t_k x_n over this rank's rows: (..., B, K), (T,) -> (2, T, ..., K).

    A block of knots at a time, and anew in backward: autograd would keep three tensors of T B K entries.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(x, t)
        blocks = [torch.stack([p.cos().mean(-2), p.sin().mean(-2)]) for p in map(x.mul, _columns(x, t))]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        refuse_second_derivative()
        x, t = ctx.saved_tensors
        upstream = upstream * (t.view(-1, *[1] * (x.ndim - 1)) / x.shape[-2])
        gradient, first = None, 0
        for block in _columns(x, t):
            of_cos, of_sin = upstream[:, first : first + len(block)].unsqueeze(-2)  # (T, ..., 1, K)
            p = x * block
            part = (p.cos() * of_sin).addcmul_(p.sin(), of_cos, value=-1).sum(0)
            gradient = part if gradient is None else gradient.add_(part)
            first += len(block)
        return gradient, None


def _columns(x: Tensor, t: Tensor) -> list[Tensor]:
    """The knots (T, ..., 1, 1) in blocks whose products with x hold at most BLOCK_ENTRIES, one knot at least."""
    return list(t.view(-1, *[1] * x.ndim).split(rows_at_a_time(x.numel(), x)))
