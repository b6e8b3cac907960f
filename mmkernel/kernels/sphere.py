"""Raw rows seen on the sphere, without making the normalised copies: norms, and distances between paired views.

With r = 1/||x||, s = 1/||y|| and d^2 = ||r x - s y||^2 = 2 - 2 cos, the gradient of d^2 is 2 (cos r^2 x - r s y) at x.
Every pass goes through rows in chunks that fit the cache.

Shapes: V views of x, G views of y, B local rows, q width, P pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmkernel.kernels.gram import row_chunks

Pairs = list[tuple[int, int]]


def unit_rows(x: Tensor, point: bool = True) -> Tensor:
    """x / ||x|| of (..., q) rows. Rows without a direction, zeros, are one point: the first axis, and have no gradient.

    ``point=False``: they stay zero, orthogonal to every row. No second derivative.
    """
    return _UnitRows.apply(x, point)


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, point: bool) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        nowhere = norm == 0
        u = x / norm.masked_fill_(nowhere, torch.inf)
        if point:
            u[..., :1] += nowhere
        ctx.save_for_backward(u, norm)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        u, norm = ctx.saved_tensors
        along = (u * upstream).sum(-1, keepdim=True)
        return torch.addcmul(upstream, u, along, value=-1).div_(norm), None


def inverse_norms(x: Tensor) -> Tensor:
    """1/||x||, at most 1e12, of (..., q) rows."""
    return torch.linalg.vector_norm(x, dim=-1).clamp_min_(1e-12).reciprocal_()


def squared_chords(x: Tensor, y: Tensor, r: Tensor, s: Tensor, pairs: Pairs) -> Tensor:
    """d^2 of the paired rows x_in, y_jn: (V, B, q), (G, B, q), (V, B), (G, B) -> (P, B).

    The difference first, then its square: 2 - 2 cos would lose every digit of two close views.
    """
    d2 = x.new_empty(len(pairs), x.shape[1])
    for p, (i, j) in enumerate(pairs):
        for chunk in row_chunks(x[0]):
            u = x[i, chunk] * r[i, chunk, None]
            u.addcmul_(y[j, chunk], s[j, chunk, None], value=-1)
            torch.linalg.vecdot(u, u, out=d2[p, chunk])
    return d2


def add_chord_gradients_(
    views: tuple[Tensor, Tensor],
    norms: tuple[Tensor, Tensor],
    d2: Tensor,
    pairs: Pairs,
    factor: Tensor | float,
    gradients: tuple[Tensor | None, Tensor | None],
    scale: Tensor | None = None,
) -> None:
    """gradients := scale * gradients + factor * gradient of sum_pairs,n d^2, for x and y; None where none is wanted.

    ``views`` = (x, y), ``norms`` = (r, s) of ``squared_chords``; ``gradients`` may be one tensor twice, as x and y may be one.
    ``scale``: (V,), for the first of ``gradients``.
    """
    (x, y), (r, s), (gx, gy) = views, norms, gradients
    terms = []  # (gradient, its share of its own row, its own rows, share of the other row, the other rows) of each pair
    for (i, j), cos in zip(pairs, 1 - d2 / 2, strict=True):
        a, b = r[i, :, None], s[j, :, None]  # (B, 1)
        own, cross = cos[:, None] * (2 * factor), a * b * (-2 * factor)
        if gx is not None:
            terms.append((gx[i], own * a * a, x[i], cross, y[j]))
        if gy is not None:
            terms.append((gy[j], own * b * b, y[j], cross, x[i]))
    scaled = [] if scale is None else list(zip(gx, scale, strict=True))
    for chunk in row_chunks(x[0]):  # every view of some rows, while they are in the cache
        for g, factor_of_view in scaled:
            g[chunk].mul_(factor_of_view)
        for g, own, rows, cross, others in terms:
            g[chunk].addcmul_(rows[chunk], own[chunk]).addcmul_(others[chunk], cross[chunk])
