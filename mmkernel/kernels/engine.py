"""Sums over all pairs of rows: the one place where N x N matrices are made.

sum_ij f(u_i.u_j) and its gradient are a product, a fold and a product: G = U U', values f(G) and slopes f'(G), f'(G) U. The
gradient is made together with the value, where the blocks are; backward only scales it. The fold is in float32 (float64 for
float64), whatever the products are. What would drown in rounding is apart: the diagonal, and the scale of slopes in float16.

Shapes: V views, B local rows, N = B W rows of all ranks, q width, b rows of a block.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmkernel.distributed import world_size
from mmkernel.kernels.fused import fused
from mmkernel.kernels.layouts import BLOCK_ENTRIES, Engine, Rows, refuse_second_derivative, rounded, sum_of
from mmkernel.kernels.sphere import Pairs as Pairs

# (G, first, columns, *constants[, statistics of rows, of columns]) -> values (K, b), dvalue/dG (V, b, N) as a symmetric
# matrix, and its diagonal (V, b) where that is apart, else None. G: (V, b, N), rows from ``first`` on; columns = 0, ..., N - 1.
Fold = Callable[..., tuple[Tensor, Tensor, Tensor | None]]


def fused_whole(objective: Callable, z: Tensor, *args: Any) -> Any:
    """objective(z, *args) of (V, B, q) rows, compiled as one where that is switched on: one rank, one block of a Gram matrix.

    Elsewhere its parts are compiled: collectives and loops over blocks lie between them.
    """
    if world_size() == 1 and (z.shape[0] * z.shape[1]) ** 2 <= BLOCK_ENTRIES['cuda']:
        return fused(objective, z, *args)
    return objective(z, *args)


def pairwise(
    u: Tensor,
    fold: Fold,
    constants: tuple = (),
    first_pass: Callable[..., Tensor] | None = None,
    engine: Engine = Engine(),  # noqa: B008
    scale: float = 1.0,
    slope: float = 1.0,
    sharded: bool = False,
) -> Tensor:
    """scale * sum over the rows of all ranks of what ``fold`` makes of their products: (V, B, q) -> (K,).

    Args:
        u: this rank's rows, equal B on every rank.
        fold: see ``Fold``; a function of tensors that ``fused`` can take, with ``constants`` as further arguments.
        first_pass: (G, first, columns, *constants) -> (V, b): what the fold must know of every row beforehand. The fold gets
            it for its rows (V, b) and for all columns (V, N).
        engine: precision and layout.
        slope: what the slopes that the fold returns are still to be multiplied by.
        sharded: u holds q of the W q columns of B rows that all ranks share, instead of B of W B rows.

    Gradients as ``mmkernel.distributed`` rules (of all columns where ``sharded``: this rank's), or of columns of
    ``engine.columns`` as ``mmkernel.distributed.shards``; no second derivative.
    """
    sharded = sharded or engine.columns is not None
    return _Pairwise.apply(u, fold, constants, first_pass, engine, scale, slope, sharded)


class _Pairwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        fold: Fold,
        constants: tuple,
        first_pass: Callable | None,
        engine: Engine,
        scale: float,
        slope: float,
        sharded: bool,
    ) -> Tensor:
        rows = Rows(u, engine, sharded)
        totals, product = _walk(rows, fold, constants, first_pass, ctx.needs_input_grad[0])
        ctx.factor = 2 * scale * slope * (world_size() if engine.columns is None else 1)
        ctx.save_for_backward(product)
        return totals * scale

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (product,) = ctx.saved_tensors
        return product * (upstream * ctx.factor).view(-1, 1, 1), None, None, None, None, None, None, None


def _walk(
    rows: Rows, fold: Fold, constants: tuple, first_pass: Callable | None, need_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """(K,) sums over all rows, and dvalue/dG U for this rank's (V, B, q) rows. No graph."""
    columns, blocks = torch.arange(rows.count, device=rows.x.device), rows.blocks(1 if first_pass is None else 2)
    G, everyone = None, None
    if first_pass is not None:
        found = []
        for block in blocks:
            G = rows.gram(block)
            found.append(fused(first_pass, G, block.start, columns, *constants))
        everyone = rows.of_every_rank(torch.cat(found, dim=1) if len(found) > 1 else found[0])
    product = rows.buffer() if need_gradient and len(blocks) > 1 else None
    totals, diagonals = [], []
    for block in blocks:
        G = rows.gram(block) if G is None or len(blocks) > 1 else G
        about = constants if everyone is None else (*constants, everyone[:, block], everyone)
        values, slope, factor, diagonal = fused(_folded, G, fold, rows.dtype, block.start, columns, *about)
        G = None
        totals.append(values.sum(-1))
        if need_gradient:
            product = rows.product(slope, factor, block, product)
            diagonals.append(diagonal)
        del slope
    return rows.total(sum_of(totals)), rows.collect(product, diagonals) if need_gradient else None


def _folded(G: Tensor, fold: Fold, dtype: torch.dtype, *args: Any) -> tuple[Tensor | None, ...]:
    """``fold`` with the slopes rounded for their product."""
    values, slope, diagonal = fold(G, *args)
    return values, *rounded(slope, dtype), diagonal


def itself(first: int, b: int, columns: Tensor) -> Tensor:
    """(b, N): where row i of a block meets column i."""
    return columns[first : first + b, None] == columns
