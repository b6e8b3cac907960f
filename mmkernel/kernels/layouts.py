"""How the N rows of the global batch lie on W ranks while their Gram matrix is made: by rows or by columns.

A pairwise objective walks over ``blocks``, slices of the rows of the N x N matrix:

    gradient = layout.buffer()
    for block in layout.blocks():
        t = layout.gram(block)                  # (b, number of columns): x_i.x_j for i in block, j in layout.columns(block)
        M = ...                                 # elementwise
        layout.accumulate(gradient, M, block)   # += M X
    gradient = layout.collect(gradient)         # (B, q)

Where a rank makes the whole matrix it is ``mirrored``: a block has only the columns from its own first row on, and
``accumulate`` uses what lies right of its square twice, as M_ij for row i and as M_ji for row j. So the Gram matrix costs half
its products, and no N x N buffer is ever needed: one block of ``BLOCK_ENTRIES`` is.

Shapes: B local rows, N = B W global rows in rank order, q width, c = ceil(q / W).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkernel.distributed import columns_to_rows, gather_rows, rank, rows_to_columns, sum_over_ranks_, world_size
from mmkernel.kernels.gram import HALVES, Engine, as_input, multiply, require_memory, rounded, symmetric_gram

BLOCK_ENTRIES = 2**22  # of the N x N matrix at a time: 16 MB in float32


class Rows:
    """Every rank holds all N rows and makes its own B rows of the N x N matrix. One gather, nothing to send back."""

    def __init__(self, x: Tensor, engine: Engine) -> None:
        self.N, self.width = x.shape[0] * world_size(), x.shape[1]
        self.dtype = engine.dtype(x)
        self.mirrored = world_size() == 1
        self.rows = slice(rank() * x.shape[0], (rank() + 1) * x.shape[0])  # of the N x N matrix, made on this rank
        if world_size() > 1:
            fix = "layout='columns' keeps q/W columns of them, transport_dtype='bfloat16' halves what is sent."
            require_memory(self.N * self.width, x, f'Gathering {self.N} rows of width {self.width}', fix)
            x = gather_rows(rounded(x, engine.transport(x)))
            x = x if x.dtype == torch.float64 or self.dtype in HALVES else x.float()
        self.x = as_input(x, self.dtype)  # (N, q)

    def blocks(self) -> list[slice]:
        """Slices of global rows that cover ``rows``, each with at most BLOCK_ENTRIES entries (and at least one row)."""
        first, last = self.rows.start, self.rows.stop
        count = -(-(last - first) // max(1, BLOCK_ENTRIES // max(1, self.N)))
        step = max(1, -(-(last - first) // max(1, count)))  # of equal size
        return [slice(i, min(i + step, last)) for i in range(first, last, step)]

    def columns(self, block: slice) -> slice:
        """The columns of the N x N matrix that ``gram(block)`` has."""
        return slice(block.start if self.mirrored else 0, self.N)

    def diagonal(self, entries: Tensor, block: slice) -> Tensor:
        """A view of the entries (i, i) of a block."""
        return entries.diagonal(block.start - self.columns(block).start)

    def gram(self, block: slice) -> Tensor:
        """x_i.x_j, i in ``block``, j in ``columns(block)``; summed over all columns of x."""
        own, right = self.x[block], self.x[self.columns(block)]
        if self.mirrored and own.shape[0] == right.shape[0]:
            return symmetric_gram(own)
        return multiply(own, right.T)

    def buffer(self, out: Tensor | None = None) -> Tensor:
        """Memory for ``accumulate``, not yet written: ``out`` if that is where the (B, q) gradient can be made."""
        shape = (self.rows.stop - self.rows.start, self.x.shape[1])
        if out is not None and out.shape == shape:
            return out
        return self.x.new_empty(shape, dtype=torch.float32 if self.x.dtype in HALVES else self.x.dtype)

    def accumulate(self, gradient: Tensor, M: Tensor, block: slice) -> None:
        """gradient += M X for the rows of ``block`` and, if mirrored, += M' X for the rows below; the first block starts it.

        M is rounded like X, so its diagonal should be zero in half precision.
        """
        M, b, first = as_input(M, self.dtype), M.shape[0], block.start == self.rows.start
        here = slice(block.start - self.rows.start, block.stop - self.rows.start)
        fresh = first or not self.mirrored  # nothing has been written to these rows yet
        _add_product(gradient[here], M, self.x[self.columns(block)], fresh)
        if self.mirrored and M.shape[1] > b:
            _add_product(gradient[block.stop :], M[:, b:].T, self.x[block], first)

    def collect(self, gradient: Tensor) -> Tensor:
        """What ``accumulate`` made -> (B, q) of this rank's rows."""
        return gradient


class Columns(Rows):
    """Every rank holds a shard of c columns of all N rows, and makes the whole N x N matrix of the summed partial Grams.

    Two all-to-all of B q numbers and an all-reduce of N^2/2; no N x q matrix anywhere.
    """

    def __init__(self, x: Tensor, engine: Engine) -> None:
        self.N, self.width = x.shape[0] * world_size(), x.shape[1]
        self.dtype, self.transport = engine.dtype(x), engine.transport(x)
        self.mirrored, self.rows = True, slice(0, self.N)
        fix = "layout='rows' makes the gradient of B rows at a time."
        entries = self.N * -(-self.width // world_size()) + min(BLOCK_ENTRIES, self.N**2)
        require_memory(2 * entries, x, f'A shard of {self.N} rows, its gradient and a block of the Gram matrix', fix)
        shard = rows_to_columns(rounded(x, self.transport))  # (N, c)
        shard = shard if shard.dtype == torch.float64 or self.dtype in HALVES else shard.float()
        self.x = as_input(shard, self.dtype)

    def gram(self, block: slice) -> Tensor:
        return sum_over_ranks_(super().gram(block))

    def collect(self, gradient: Tensor) -> Tensor:
        back = columns_to_rows(rounded(gradient, self.transport), self.width)
        return back.to(gradient.dtype)


def arrange(x: Tensor, engine: Engine) -> Rows:
    """The layout of (B, q) local rows that ``engine`` asks for; 'auto' compares what the two send."""
    columns = engine.layout == 'columns' or (engine.layout == 'auto' and x.shape[1] >= 4 * x.shape[0] * world_size())
    return Columns(x, engine) if columns and world_size() > 1 else Rows(x, engine)


def _add_product(out: Tensor, a: Tensor, b: Tensor, fresh: bool) -> None:
    """out (+)= a b, in strips where the product needs a temporary."""
    if a.dtype not in HALVES:
        torch.mm(a, b, out=out) if fresh else out.addmm_(a, b)
        return
    strip = max(1, BLOCK_ENTRIES // b.shape[1])
    for i in range(0, a.shape[0], strip):
        part = multiply(a[i : i + strip], b)
        out[i : i + strip].copy_(part) if fresh else out[i : i + strip].add_(part)
