"""Diagonal and off-diagonal part of the cross-correlation of views, with the gradient of both.

With standardised rows a, b of two views, C = a'b / N and ||a'b||_F^2 = <aa', bb'>, the off-diagonal energy costs
min(N q^2, N^2 q). The gradient at a is k (bb' a / N) + b (k_on (c - 1) - k c) with c the diagonal of C; that at the raw rows
x is (g - a mean(g a)) / std, for both ones and a have zero mean. One product is made in forward, and the elementwise pass in
backward, where the upstream factors of the two terms are known.

Shapes: B local rows, N = B W global rows, q width, P pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkernel.distributed import world_size
from mmkernel.kernels.gram import Engine, row_chunks
from mmkernel.losses.correlation_sides import View, by_columns, by_rows
from mmkernel.losses.moments import NO_SECOND_DERIVATIVE, column_moments

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
) -> tuple[tuple[Tensor, Tensor], tuple[list[View], list[Tensor | None], float]]:
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
            views.append(View(z[v], moments.mean[v], rstd[v], gradients[-1][v] if need else None))
    offset = 0 if target is None else predicted.shape[0]
    pairs = [(i, j + offset) for i, j in pairs]
    for view in views:  # one that is in no pair has nothing to do with the terms
        if view.product is not None and not any(views[v] is view for pair in pairs for v in pair):
            view.product.zero_()
            view.product = None
    (N, q), P = (predicted.shape[1] * world_size(), predicted.shape[2]), len(pairs)
    energy, diagonals, scale = (by_rows if N * _DUAL_FROM <= q else by_columns)(views, pairs, engine)
    on, off = (diagonals.double() - 1).square().sum() / P, energy / P
    return (on.to(predicted.dtype), off.to(predicted.dtype)), (views, gradients, scale)


def _finish_gradients(views: list[View], of_on: Tensor | None, of_off: Tensor | None, scale: float) -> None:
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


def _factors(view: View, of_on: Tensor | None, of_off: Tensor | None) -> tuple[Tensor, list[Tensor]]:
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
