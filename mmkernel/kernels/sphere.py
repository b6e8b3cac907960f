"""Rows put on the sphere, and the distances between paired views there.

Shapes: V views, G target views, B local rows, q width, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import global_mean
from mmkernel.kernels.fused import fused
from mmkernel.kernels.products import refuse_second_derivative, sum_of

Pairs = Sequence[tuple[int, int]]
_CACHED_ENTRIES = 2**17


def unit_rows(x: Tensor, point: bool = True) -> Tensor:
    """x / ||x|| of (..., q) rows. Rows without a direction, zeros, are one point: the first axis, and have no gradient.

    ``point=False``: they stay zero, orthogonal to every row. NaN where ||x|| is beyond the dtype. No second derivative.
    """
    return _ToSphere.apply(x, (), 1, point, True)[0]


def to_sphere(x: Tensor, pairs: Pairs, reduction: str = 'sample') -> tuple[Tensor, Tensor]:
    """``unit_rows`` and mean_pairs mean_n ||u_in - u_jn||^2 over the rows of all ranks: (V, B, q) -> (V, B, q), ().

    In one function, so that neither u nor the differences are kept: backward makes them of the rows and their norms.
    ``reduction='element'`` divides the distance by q; without a pair it is 0.
    """
    u, distance = _ToSphere.apply(x, tuple(pairs), x.shape[-1] if reduction == 'sample' else 1, True, False)
    return u, global_mean(distance) if pairs else x.new_zeros(())


def mean_square(x: Tensor, y: Tensor, pairs: Pairs) -> Tensor:
    """mean over pairs and all entries of (x_i - y_j)^2: (V, B, q), (G, B, q) -> (); 0 without a pair."""
    if not pairs:
        return x.new_zeros(())
    same, x = x is y, x.unbind()  # once, so that backward stacks once
    y = x if same else y.unbind()
    squares = [F.mse_loss(x[i], y[j]) for i, j in pairs]
    return squares[0] if len(squares) == 1 else torch.stack(squares).mean()


class _ToSphere(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, pairs: tuple, factor: int, point: bool, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """``keep`` u for backward instead of x: two launches fewer, and the memory of u."""
        u, norm, nowhere = fused(_project, x, point)
        distance = None
        if pairs:
            parts = [fused(_squares, u[:, k], pairs) for k in _chunks(u)]
            distance = sum_of(parts) * (factor / (len(pairs) * x[0].numel()))
        ctx.save_for_backward(u if keep else x, norm, nowhere)
        ctx.pairs, ctx.factor, ctx.keep = pairs, factor, keep
        ctx.set_materialize_grads(False)  # a part that nobody differentiates costs nothing
        return u, distance

    @staticmethod
    def backward(ctx: Any, of_u: Tensor | None, of_distance: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, norm, nowhere = ctx.saved_tensors
        c = None if of_distance is None else of_distance * (-2 * ctx.factor / (len(ctx.pairs) * x[0].numel()))
        parts = _chunks(x)
        if len(parts) == 1:
            return fused(_tangent, x, norm, nowhere, of_u, c, ctx.pairs, ctx.keep), None, None, None, None
        gradient = torch.empty_like(x, memory_format=torch.contiguous_format)
        for k in parts:
            part = None if of_u is None else of_u[:, k]
            gradient[:, k] = _tangent(x[:, k], norm[:, k], nowhere[:, k], part, c, ctx.pairs, ctx.keep)
        return gradient, None, None, None, None


def _chunks(x: Tensor) -> list[slice]:
    """Of the rows of (V, B, q): what stays in the cache of a CPU together with its temporaries; all rows on a GPU."""
    if x.device.type != 'cpu' or x.ndim != 3:
        return [slice(None)]
    step = max(1, _CACHED_ENTRIES // x[:, :1].numel())
    return [slice(i, i + step) for i in range(0, x.shape[1], step)]


def _project(x: Tensor, point: bool) -> tuple[Tensor, Tensor, Tensor]:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).fmod_(torch.inf)  # infinity, an overflow too, becomes NaN
    nowhere = norm == 0
    norm = norm.masked_fill_(nowhere, torch.inf)
    return _unit(x, norm, nowhere) if point else x / norm, norm, nowhere


def _unit(x: Tensor, norm: Tensor, nowhere: Tensor) -> Tensor:
    u = x / norm
    u[..., :1].add_(nowhere)
    return u


def _squares(u: Tensor, pairs: tuple) -> Tensor:
    return sum_of([F.mse_loss(u[i], u[j], reduction='sum') for i, j in pairs])


def _tangent(
    x: Tensor, norm: Tensor, nowhere: Tensor, of_u: Tensor | None, c: Tensor | None, pairs: tuple, unit: bool
) -> Tensor:
    """(h - (h.u) u) / ||x|| with h_i = of_u_i + c sum_partners u_j: the rest of the distance's gradient is radial.

    ``unit``: x is u. Nothing is written in place into a view of h: compiled, each such write would be a copy of h.
    """
    u = x if unit else _unit(x, norm, nowhere)
    h = torch.zeros_like(u) if of_u is None else of_u
    if c is not None:
        h = list(h)
        for i, j in (*pairs, *((j, i) for i, j in pairs)):
            h[i] = torch.addcmul(h[i], u[j], c)
        h = torch.stack(h)
    return torch.addcmul(h, u, (h * u).sum(-1, keepdim=True), value=-1).div_(norm)
