"""Rows put on the sphere, and their distances there, each with a backward pass that keeps neither.

Rows of (..., q), or the columns that this rank holds of them (``columns`` = q, see ``mmkernel.distributed.shards``): then
||x||^2 and h.u are sums over ranks, N numbers a view, and nothing else travels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import rank, sum_over_ranks_
from mmkernel.distributed.shards import part_of_mean, total
from mmkernel.kernels.fused import fused
from mmkernel.kernels.layouts import refuse_second_derivative, sum_of

Pairs = Sequence[tuple[int, int]]


def unit_rows(x: Tensor, point: bool = True, columns: int | None = None) -> Tensor:
    """x / ||x|| of (..., q) rows. Rows without a direction, zeros, are one point: the first axis, and have no gradient.

    ``point=False``: they stay zero, orthogonal to every row. NaN where ||x|| is beyond the dtype. No second derivative.
    """
    return _ToSphere.apply(x, (), 1, point, True, columns)[0]


def to_sphere(x: Tensor, pairs: Pairs, reduction: str = 'sample', columns: int | None = None) -> tuple[Tensor, Tensor]:
    """``unit_rows`` and mean_pairs mean_n ||u_in - u_jn||^2 over the rows of all ranks: (V, B, q) -> (V, B, q), ().

    In one function, so that neither u nor the differences are kept: backward makes them of the rows and their norms.
    ``reduction='element'`` divides the distance by q; without a pair it is 0.
    """
    factor = x.shape[-1] if reduction == 'sample' else part_of_mean(x, columns)
    u, distance = _ToSphere.apply(x, tuple(pairs), factor, True, False, columns)
    return u, total(distance, columns) if pairs else x.new_zeros(())


class _ToSphere(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, pairs: tuple, factor: float, point: bool, keep: bool, columns: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """``keep`` u for backward instead of x: two launches fewer, and the memory of u."""
        u, norm, nowhere = fused(_project, x, point) if columns is None else _project(x, point, True)
        distance = fused(_squares, u, pairs) * (factor / (len(pairs) * x[0].numel())) if pairs else None
        ctx.save_for_backward(u if keep else x, norm, nowhere)
        ctx.pairs, ctx.factor, ctx.keep, ctx.spread = pairs, factor, keep, columns is not None
        ctx.set_materialize_grads(False)  # a part that nobody differentiates costs nothing
        return u, distance

    @staticmethod
    def backward(ctx: Any, of_u: Tensor | None, of_distance: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, norm, nowhere = ctx.saved_tensors
        c = None if of_distance is None else of_distance * (-2 * ctx.factor / (len(ctx.pairs) * x[0].numel()))
        about = x, norm, nowhere, of_u, c, ctx.pairs, ctx.keep
        return _tangent(*about, True) if ctx.spread else fused(_tangent, *about), None, None, None, None, None


def _project(x: Tensor, point: bool, spread: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    norm = sum_over_ranks_(norm.square_()).sqrt_() if spread else norm
    norm = norm.fmod_(torch.inf)  # infinity, an overflow too, becomes NaN
    nowhere = norm == 0
    norm = norm.masked_fill_(nowhere, torch.inf)
    return _unit(x, norm, nowhere, spread) if point else x / norm, norm, nowhere


def _unit(x: Tensor, norm: Tensor, nowhere: Tensor, spread: bool = False) -> Tensor:
    u = x / norm
    if not spread or rank() == 0:  # where the first column is
        u[..., :1].add_(nowhere)
    return u


def _squares(u: Tensor, pairs: tuple) -> Tensor:
    return sum_of([F.mse_loss(u[i], u[j], reduction='sum') for i, j in pairs])


def _tangent(
    x: Tensor, norm: Tensor, nowhere: Tensor, of_u: Tensor | None, c: Tensor | None, pairs: tuple, unit: bool,
    spread: bool = False,
) -> Tensor:  # fmt: skip
    """(h - (h.u) u) / ||x|| with h_i = of_u_i + c sum_partners u_j: the rest of the distance's gradient is radial.

    ``unit``: x is u. Nothing is written in place into a view of h: compiled, each such write would be a copy of h.
    """
    u = x if unit else _unit(x, norm, nowhere, spread)
    h = torch.zeros_like(u) if of_u is None else of_u
    if c is not None:
        h = list(h)
        for i, j in (*pairs, *((j, i) for i, j in pairs)):
            h[i] = torch.addcmul(h[i], u[j], c)
        h = torch.stack(h)
    along = (h * u).sum(-1, keepdim=True)
    along = sum_over_ranks_(along) if spread else along
    return torch.addcmul(h, u, along, value=-1).div_(norm)
