"""Diagonal and off-diagonal part of the cross-correlation of views, with the gradient of both.

With standardised rows a, b of two views, C = a'b / N and ||a'b||_F^2 = <aa', bb'>, the off-diagonal energy costs
min(N q^2, N^2 q). The gradient at a is k (bb' a / N) + b (k_on (c - 1) - k c) with c the diagonal of C; that at the raw rows
x is (g - a mean(g a)) / std, for both ones and a have zero mean. One product is made in forward, and the elementwise pass in
backward, where the upstream factors of the two terms are known.

Shapes: B local rows, N = B W global rows, q width, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmkernel.distributed import sum_over_ranks_, world_size
from mmkernel.kernels.gram import Engine, as_input, multiply, row_chunks
from mmkernel.kernels.layouts import arrange
from mmkernel.losses.moments import (
    NO_SECOND_DERIVATIVE,
    collect_into,
    column_moments,
    own_rows,
    total,
    weighted_dot,
)

_DUAL_FROM = 1.4  # q / N: one X'Y against two Gram matrices


def correlation_terms(
    predicted: Tensor,
    target: Tensor | None,
    pairs: list[tuple[int, int]],
    eps: float = 1e-5,
    precision: str = 'auto',
    layout: str = 'auto',
    transport_dtype: str | None = None,
) -> tuple[Tensor, Tensor]:
    """mean_(i,j) sum_k (C_kk - 1)^2  and  mean_(i,j) sum_{k != l} C_kl^2,  C = x'y / N of standardised x_i, y_j.

    Zbontar et al., Barlow Twins, ICML 2021. Columns are standardised over the rows of all ranks, divisor N.

    Args:
        predicted, target: (V, B, q) and (G, B, q), this rank's rows, equal B on every rank; ``target`` None: ``predicted``.
        pairs: (i in predicted, j in target); where both are one tensor, i != j and each pair once.
        eps: inside the square root.
        precision, layout, transport_dtype: as ``mmkernel.kernels.gram.Engine`` has them.

    Returns:
        Two scalars of the global batch; gradients as ``mmkernel.distributed`` rules, no second derivative.
    """
    predicted, target = (x if x is None or x.dtype == torch.float64 else x.float() for x in (predicted, target))
    return _CorrelationTerms.apply(predicted, target, tuple(pairs), eps, Engine(precision, layout, transport_dtype))


@dataclass
class _View:
    """One view's rows, standardised as a = (x - mean) rstd when they are needed, and what its gradient is made of."""

    x: Tensor  # (B, q)
    mean: Tensor  # (q,)
    rstd: Tensor
    product: Tensor | None  # (B, q), of bb' a without the diagonal of bb', or of b C' without the diagonal of C
    partners: list[tuple[int, Tensor]] = field(default_factory=list)  # (view, diagonal c of C)
    norms: Tensor | None = None  # (q,) sum over partners of the squared rows of C without its diagonal
    diagonal: Tensor | None = None  # (B,) sum over partners of |b_n|^2; None for b C'

    def rows(self, rows: slice) -> Tensor:
        return (self.x[rows] - self.mean).mul_(self.rstd)


class _CorrelationTerms(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, predicted: Tensor, target: Tensor | None, pairs: tuple, eps: float, engine: Engine
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(predicted, target)
        ctx.options = (pairs, eps, engine, ctx.needs_input_grad[:2])
        with torch.autocast(predicted.device.type, enabled=False):
            terms, ctx.found = _correlate(predicted, target, *ctx.options)
        ctx.set_materialize_grads(False)
        return terms

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(f'correlation_terms {NO_SECOND_DERIVATIVE}')
        found, ctx.found = ctx.found, None  # handed over: gradients are made in place
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            if found is None:  # a second backward through a retained graph
                _, found = _correlate(*ctx.saved_tensors, *ctx.options)
            views, gradients, scale = found
            k = 2 * world_size() / (views[0].x.shape[0] * world_size() * len(ctx.options[0]))
            of_on, of_off = (None if u is None else u * k for u in upstream)
            _finish_gradients(views, of_on, of_off, scale)
        return *gradients, None, None, None


def _correlate(
    predicted: Tensor, target: Tensor | None, pairs: tuple, eps: float, engine: Engine, needed: tuple[bool, bool]
) -> tuple[tuple[Tensor, Tensor], tuple[list[_View], list[Tensor | None], float]]:
    """The two terms, and (views, memory of the gradients, scale of the products)."""
    views, gradients = [], []
    for z, need in zip((predicted, target), needed, strict=True):
        if z is None:
            gradients.append(None)
            continue
        moments = column_moments(z)
        gradients.append(torch.empty_like(z, memory_format=torch.contiguous_format) if need else None)
        rstd = (moments.squares / moments.N + eps).rsqrt()
        for v in range(z.shape[0]):
            views.append(_View(z[v], moments.mean[v], rstd[v], gradients[-1][v] if need else None))
    offset = 0 if target is None else predicted.shape[0]
    pairs = [(i, j + offset) for i, j in pairs]
    for view in views:  # one that is in no pair has nothing to do with the terms
        if view.product is not None and not any(views[v] is view for pair in pairs for v in pair):
            view.product.zero_()
            view.product = None
    (N, q), P = (predicted.shape[1] * world_size(), predicted.shape[2]), len(pairs)
    diagonals = _diagonals(views, pairs)  # (P, q)
    dual = N * _DUAL_FROM <= q
    energy, scale = (_dual if dual else _primal)(views, pairs, engine)
    squares = diagonals.double().square().sum()
    on, off = (diagonals.double() - 1).square().sum() / P, (energy - squares if dual else energy) / P
    return (on.to(predicted.dtype), off.to(predicted.dtype)), (views, gradients, scale)


def _diagonals(views: list[_View], pairs: list[tuple[int, int]]) -> Tensor:
    """(P, q) diagonals of C, made known to both partners."""
    x = views[0].x
    C = torch.zeros(len(pairs), x.shape[1], dtype=torch.float64, device=x.device)
    for p, (i, j) in enumerate(pairs):
        for rows in row_chunks(x):
            C[p] += views[i].rows(rows).mul_(views[j].rows(rows)).sum(0)
    C = (sum_over_ranks_(C) / (x.shape[0] * world_size())).to(x.dtype)
    for c, (i, j) in zip(C, pairs, strict=True):
        views[i].partners.append((j, c))
        views[j].partners.append((i, c))
    return C


def _dual(views: list[_View], pairs: list[tuple[int, int]], engine: Engine) -> tuple[Tensor, float]:
    """sum over pairs of <aa', bb'> / N^2 by blocks of rows, all views at once; the products are / q."""
    (B, q), everything = views[0].x.shape, slice(None)
    N = B * world_size()
    layouts = [arrange(view.rows(everything), engine) for view in views]
    buffers = [None if v.product is None else L.buffer(v.product) for v, L in zip(views, layouts, strict=True)]
    first = layouts[0].rows.start
    lengths = torch.empty(len(views), layouts[0].rows.stop - first, dtype=views[0].x.dtype, device=views[0].x.device)
    energy = torch.zeros((), dtype=torch.float64, device=lengths.device)
    for block in layouts[0].blocks():
        K = [layout.gram(block) for layout in layouts]
        for i, j in pairs:
            energy += weighted_dot(K[i], K[j], layouts[0].mirrored)
        for v, layout in enumerate(layouts):
            own = layout.diagonal(K[v], block)
            lengths[v, block.start - first : block.stop - first] = own
            own.zero_()  # q: in half precision it would drown the other entries
            K[v].div_(q)
        for view, layout, buffer in zip(views, layouts, buffers, strict=True):
            if buffer is not None:
                others = [K[j] for j, _ in view.partners]
                layout.accumulate(buffer, others[0] if len(others) == 1 else sum(others[1:], others[0]), block)
    for view, layout, buffer in zip(views, layouts, buffers, strict=True):
        collect_into(view.product, buffer, layout)
        if buffer is not None:
            view.diagonal = own_rows(layout, sum(lengths[j] for j, _ in view.partners), B)
            view.norms = _norms_of_rows(view, N, q) - sum(c.square() for _, c in view.partners)
    return total(layouts[0], energy) / N**2, q / N


def _norms_of_rows(view: _View, N: int, q: int) -> Tensor:
    """(q,) diagonal of a'bb'a / N^2, from the product bb'a."""
    norms = torch.zeros(q, dtype=torch.float64, device=view.x.device)
    for rows in row_chunks(view.x):
        a = view.rows(rows)
        norms += (view.product[rows] * q).addcmul_(a, view.diagonal[rows, None]).mul_(a).sum(0)
    return (sum_over_ranks_(norms) / N**2).to(view.x.dtype)


def _primal(views: list[_View], pairs: list[tuple[int, int]], engine: Engine) -> tuple[Tensor, float]:
    """sum over pairs of the off-diagonal ||C||_F^2, C summed over ranks; no row travels."""
    N, dtype = views[0].x.shape[0] * world_size(), engine.dtype(views[0].x)
    rows = [as_input(view.rows(slice(None)), dtype) for view in views]
    energy = torch.zeros((), dtype=torch.float64, device=rows[0].device)
    for i, j in pairs:
        C = sum_over_ranks_(multiply(rows[i].T, rows[j])).div_(N)  # (q, q)
        C.diagonal().zero_()
        for view, other, matrix in ((views[i], rows[j], C.T), (views[j], rows[i], C)):
            norms = torch.linalg.vecdot(matrix, matrix, dim=0)
            energy += norms.double().sum() / 2  # of C and of C'
            if view.product is not None:
                _add_product(view, other, as_input(matrix, dtype), norms)
    return energy, 1.0


def _add_product(view: _View, rows: Tensor, matrix: Tensor, norms: Tensor) -> None:
    """view.product += rows matrix; the first partner starts it."""
    if view.norms is None:
        view.norms = norms
        view.product.copy_(multiply(rows, matrix)) if rows.dtype != view.product.dtype else torch.mm(
            rows, matrix, out=view.product
        )
    else:
        view.norms = view.norms + norms
        view.product.add_(multiply(rows, matrix))


def _finish_gradients(views: list[_View], of_on: Tensor | None, of_off: Tensor | None, scale: float) -> None:
    """view.product -> the gradient at this rank's rows of each view; upstream factors carry 2 W / (N P)."""
    N = views[0].x.shape[0] * world_size()
    factors = [_factors(view, of_on, of_off) for view in views]
    for rows in row_chunks(views[0].x):
        a = [view.rows(rows) for view in views]
        for v, view in enumerate(views):
            if view.product is None:
                continue
            g, (own, columns) = view.product[rows], factors[v]
            if of_off is None:
                g.zero_()
            else:
                g.mul_(of_off * scale)
            if of_off is not None and view.diagonal is not None:
                own = own + (of_off / N) * view.diagonal[rows, None]
            g.addcmul_(a[v], own)
            for (j, _), column in zip(view.partners, columns, strict=True):
                g.addcmul_(a[j], column)
            g.mul_(view.rstd)


def _factors(view: _View, of_on: Tensor | None, of_off: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    """What a view's rows are multiplied by in its gradient, -mean(g a), and what those of each partner are: (q,) each."""
    own, columns = torch.zeros_like(view.mean), []
    if of_off is not None and view.norms is not None:
        own -= of_off * view.norms
    for _, c in view.partners:
        column = torch.zeros_like(c)
        if of_on is not None:
            column += of_on * (c - 1)
            own -= of_on * (c - 1) * c
        if of_off is not None and view.diagonal is not None:  # the product has the diagonal of C in it
            column -= of_off * c
        columns.append(column)
    return own, columns
