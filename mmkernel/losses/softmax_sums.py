"""log sum_{b != a} exp(z^_a.z^_b / T) of every row against all others, with the sphere folded into the matrix of logits.

With logits l_ab = t_ab / T and weights w, sum_a w_a lse_a has the gradient (1/T) M X at the raw rows, where
P_ab = w_a exp(l_ab - lse_a) + w_b exp(l_ab - lse_b), and M is made of P as in ``mmkernel.kernels.pair_sums``. Ranks exchange
log-sum-exps, one number a row, instead of gradients.

Shapes: A local rows of all views, A W rows of all ranks in rank order, q width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkernel.distributed import gather_rows, rank
from mmkernel.kernels.gram import Engine, row_chunks
from mmkernel.kernels.layouts import Rows, arrange
from mmkernel.kernels.pair_sums import place_gradient


def softmax_sum(
    x: Tensor, r: Tensor, weights: Tensor, temperature: float, engine: Engine, gradient: Tensor | None
) -> Tensor:
    """sum_a w_a lse_a over the rows of all ranks, in float64; T times its gradient at the rows ``x`` into ``gradient``.

    ``x``: (A, q) raw rows; ``r``: (A,) their inverse norms; ``weights``: (A,), alike on every rank.
    """
    R = gather_rows(r)
    w, own = weights.repeat(len(R) // len(r)), slice(rank() * len(r), (rank() + 1) * len(r))
    unit = engine.rounds(x)  # put on the sphere before it is rounded
    layout = arrange(x * r[:, None] if unit else x, engine)
    scale = torch.ones_like(R) if unit else R
    blocks, kept = layout.blocks(), None
    lse = torch.full_like(R, -torch.inf)
    for block in blocks:
        logits = layout.gram(block)
        _add_to_normalisers(logits, block, layout, scale, temperature, lse)
        kept = logits if len(blocks) == 1 else None  # what fits the budget is not made twice
    if not layout.mirrored:
        lse = gather_rows(lse[own])
    if gradient is not None:
        radial, made = torch.zeros_like(R), layout.buffer(gradient)
        for block in blocks:
            logits = layout.gram(block) if kept is None else kept
            _fold(logits, block, layout, scale, temperature, lse, w, radial, fresh=kept is None)
            if not unit:
                layout.diagonal(logits, block).copy_(-radial[block] * R[block] ** 2)
            layout.accumulate(made, logits, block)
            del logits
        place_gradient(layout.collect(made), x, r, radial[own], unit, gradient)
    return (w * lse).double().sum()


def _to_logits(c: Tensor, rows: slice, columns: slice, scale: Tensor, temperature: float) -> None:
    """x_a.x_b -> l_ab in place, -inf on the diagonal."""
    c.mul_((scale[rows] / temperature)[:, None]).mul_(scale[columns])
    c.diagonal(rows.start - columns.start).fill_(-torch.inf)


def _add_to_normalisers(
    block_of_gram: Tensor, block: slice, layout: Rows, scale: Tensor, temperature: float, lse: Tensor
) -> None:
    """Turn a block into logits; bring its rows, and its columns right of the square if mirrored, into ``lse``."""
    columns, b = layout.columns(block), block.stop - block.start
    for chunk in row_chunks(block_of_gram):
        rows = slice(block.start + chunk.start, block.start + chunk.stop)
        _to_logits(block_of_gram[chunk], rows, columns, scale, temperature)
        lse[rows] = torch.logaddexp(lse[rows], block_of_gram[chunk].logsumexp(1))
    if layout.mirrored and block.stop < layout.N:
        lse[block.stop :] = torch.logaddexp(lse[block.stop :], block_of_gram[:, b:].logsumexp(0))


def _fold(
    logits: Tensor,
    block: slice,
    layout: Rows,
    scale: Tensor,
    temperature: float,
    lse: Tensor,
    w: Tensor,
    radial: Tensor,
    fresh: bool,
) -> None:
    """Overwrite a block of logits (``fresh``: of x_a.x_b) with M off the diagonal, 0 on it; add to ``radial``."""
    columns, b = layout.columns(block), block.stop - block.start
    for chunk in row_chunks(logits):
        rows, c = slice(block.start + chunk.start, block.start + chunk.stop), logits[chunk]
        if fresh:
            _to_logits(c, rows, columns, scale, temperature)
        P = (c - lse[rows, None]).exp_().mul_(w[rows, None])
        P.add_((c - lse[columns]).exp_().mul_(w[columns]))
        c.diagonal(rows.start - columns.start).zero_()  # P is 0 there, exp(-inf)
        Pt = c.mul_(temperature).mul_(P)
        radial[rows] += Pt.sum(1)
        if layout.mirrored:
            radial[block.stop :] += Pt[:, b:].sum(0)
        torch.mul(P, scale[rows, None], out=c).mul_(scale[columns])
