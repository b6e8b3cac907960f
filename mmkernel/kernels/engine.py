"""Sums over all pairs of rows: the one place where N x N matrices are made.

sum_ij f(u_i.u_j) and its gradient are a product, a fold and a product: G = U U', values f(G) and slopes f'(G), f'(G) U. The
gradient is made together with the value, where the blocks are; backward only scales it. What costs N q belongs outside,
under autograd.

A product may have half-precision inputs and accumulates in float32; the fold is float32 (float64 for float64). What would
drown in rounding is apart: the diagonal, and the scale of slopes in float16.

Shapes: V views, B local rows, N = B W rows of all ranks, q width, b rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmkernel.distributed import (
    columns_to_rows,
    gather_rows,
    max_over_ranks,
    rank,
    rows_to_columns,
    sum_over_ranks_,
    world_size,
)
from mmkernel.kernels.fused import fused

_DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
PRECISIONS = ('auto', *_DTYPES)
LAYOUTS = ('auto', 'rows', 'columns')
TRANSPORTS = (None, 'bfloat16', 'float16')
HALVES = (torch.bfloat16, torch.float16)
BLOCK_ENTRIES = dict(cpu=2**22, cuda=2**26)  # of Gram matrices at a time: 16 and 256 MB in float32

# (G, first, columns, *constants[, statistics of rows, of columns]) -> values (K, b), dvalue/dG (V, b, N) as a symmetric
# matrix, and its diagonal (V, b) where that is apart, else None. G: (V, b, N), rows from ``first`` on; columns = 0, ..., N - 1.
Fold = Callable[..., tuple[Tensor, Tensor, Tensor | None]]


@dataclass(frozen=True)
class Engine:
    """The three words that every pairwise objective and its head take.

    Args:
        precision: of the inputs of the products: 'float32', 'bfloat16', 'float16', or 'auto', the half precision in which
            the encoder made the embeddings where they live on a GPU, else float32. float64 embeddings stay float64.
        layout: how N rows lie on W ranks. 'rows': each rank gathers all rows and makes its B x N block of the Gram matrix;
            'columns': each rank holds q/W columns of all rows, and the ranks' partial Gram matrices are summed.
            'auto': rows on one rank, else columns if q >= 4 N.
        transport_dtype: None, or the half precision in which rows travel between ranks.
    """

    precision: str = 'auto'
    layout: str = 'auto'
    transport_dtype: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (('precision', PRECISIONS), ('layout', LAYOUTS), ('transport_dtype', TRANSPORTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f'{name} is one of {", ".join(map(repr, allowed))}, got {getattr(self, name)!r}.')

    def options(self, z: Tensor, computed_in: torch.dtype | None = None) -> dict[str, Any]:
        """The three keywords for promoted embeddings ``z`` that were computed in another dtype: 'auto' becomes that one."""
        precision = self.precision
        if precision == 'auto' and z.is_cuda and computed_in in HALVES:
            precision = str(computed_in).removeprefix('torch.')
        return dict(precision=precision, layout=self.layout, transport_dtype=self.transport_dtype)

    def dtype(self, z: Tensor) -> torch.dtype:
        """The dtype in which rows ``z`` enter a product."""
        if z.dtype == torch.float64:
            return torch.float64
        return torch.float32 if self.precision == 'auto' else _DTYPES[self.precision]

    def transport(self, z: Tensor) -> torch.dtype:
        """The dtype in which rows ``z`` travel. Half inputs of a product travel as such: nothing more is lost."""
        if z.dtype == torch.float64:
            return z.dtype
        return self.dtype(z) if self.transport_dtype is None else _DTYPES[self.transport_dtype]


def refuse_second_derivative() -> None:
    """Under create_graph=True a gradient that was made without a graph would pass for a constant."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            'This objective has no second derivative: call backward or autograd.grad without create_graph=True.'
        )


def sum_of(terms: list[Tensor]) -> Tensor:
    """terms[0] + terms[1] + ..., without the 0 of Python's sum, which is a launch."""
    return sum(terms[1:], terms[0])


def promoted(z: Tensor) -> Tensor:
    """Half precision -> float32; float64 stays."""
    return z if z.dtype == torch.float64 else z.float()


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

    Gradients as ``mmkernel.distributed`` rules (of all columns where ``sharded``: this rank's); no second derivative.
    """
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
        rows = _Rows(u, engine, sharded)
        totals, product = _walk(rows, fold, constants, first_pass, ctx.needs_input_grad[0])
        ctx.factor = 2 * scale * slope * world_size()
        ctx.save_for_backward(product)
        return totals * scale

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (product,) = ctx.saved_tensors
        return product * (upstream * ctx.factor).view(-1, 1, 1), None, None, None, None, None, None, None


def _walk(
    rows: _Rows, fold: Fold, constants: tuple, first_pass: Callable | None, need_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """(K,) sums over all rows, and dvalue/dG U for this rank's (V, B, q) rows. No graph."""
    columns, blocks = torch.arange(rows.count, device=rows.x.device), rows.blocks()
    G, everyone = None, None
    if first_pass is not None:
        found = []
        for block in blocks:
            G = rows.gram(block)
            found.append(fused(first_pass, G, block.start, columns, *constants))
        everyone = rows.of_every_rank(torch.cat(found, dim=1) if len(found) > 1 else found[0])
    totals, products, diagonals = [], [], []
    for block in blocks:
        G = rows.gram(block) if G is None or len(blocks) > 1 else G
        statistics = () if everyone is None else (everyone[:, block], everyone)
        values, slope, factor, diagonal = fused(
            _folded, G, fold, rows.dtype, block.start, columns, *constants, *statistics
        )
        G = None
        totals.append(values.sum(-1))
        if need_gradient:
            products.append(rows.product(slope, factor))
            diagonals.append(diagonal)
        del slope
    return rows.total(sum_of(totals)), rows.collect(products, diagonals) if need_gradient else None


def _folded(
    G: Tensor, fold: Fold, dtype: torch.dtype, *args: Any
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """``fold`` with the slopes rounded for their product."""
    values, slope, diagonal = fold(G, *args)
    return values, *rounded(slope, dtype), diagonal


def itself(first: int, b: int, columns: Tensor) -> Tensor:
    """(b, N): where row i of a block meets column i."""
    return columns[first : first + b, None] == columns


def diagonal_of(K: Tensor, first: int, columns: Tensor) -> Tensor:
    """(V, b): K_ii of the rows of a block."""
    rows = columns[first : first + K.shape[1], None]
    return K.gather(-1, rows.expand(len(K), -1, -1)).squeeze(-1)


class _Rows:
    """How the rows of all ranks lie on this one: ``x`` (V, N, c), and the ``mine`` of them whose products it makes.

    rows      c = q, all rows gathered; this rank makes B x N of the matrix. One gather, nothing to send back.
    columns   c = q / W; every rank makes the whole matrix of the summed partial Grams. Two all-to-all, no N x q matrix.
    sharded   as columns, of rows that lie so already.
    """

    def __init__(self, u: Tensor, engine: Engine, sharded: bool) -> None:
        W, B = world_size(), u.shape[1]
        self.u, self.dtype, self.transport, self.sharded = u, engine.dtype(u), engine.transport(u), sharded
        wide = engine.layout == 'columns' or (engine.layout == 'auto' and u.shape[2] >= 4 * B * W)
        self.summed = W > 1 and (sharded or wide)
        self.gathered = W > 1 and not self.summed
        self.mine = slice(rank() * B, (rank() + 1) * B) if self.gathered else slice(0, B if sharded else B * W)
        if W > 1 and not sharded:
            x, self.factor = rounded(u, self.transport, everywhere=True)
            x = rows_to_columns(x) if self.summed else gather_rows(x.transpose(0, 1)).transpose(0, 1)
            self.x = as_input(x, self.dtype)
        else:
            x, self.factor = rounded(u, self.dtype)
            self.x = as_input(x, self.dtype)
        self.count = self.x.shape[1]

    def blocks(self) -> list[slice]:
        """Slices of ``mine``, each of at most BLOCK_ENTRIES (and one row at least) in the matrices of all views."""
        first, last = self.mine.start, self.mine.stop
        entries = BLOCK_ENTRIES.get(self.x.device.type, BLOCK_ENTRIES['cuda'])
        parts = -(-(last - first) // max(1, entries // (len(self.x) * self.count)))
        step = -(-(last - first) // parts)  # of equal size
        return [slice(i, min(i + step, last)) for i in range(first, last, step)]

    def gram(self, block: slice) -> Tensor:
        """(V, b, N) products of the rows of ``block`` with all rows, over all columns."""
        G = multiply(self.x[:, block], self.x.mT)
        if self.factor is not None:
            G *= self.factor**2
        return sum_over_ranks_(G) if self.summed else G

    def of_every_rank(self, statistics: Tensor) -> Tensor:
        """(V, rows of this rank) -> (V, N)."""
        return gather_rows(statistics.T, checked=True).T if self.gathered else statistics

    def total(self, totals: Tensor) -> Tensor:
        return sum_over_ranks_(totals) if self.gathered else totals

    def product(self, slope: Tensor, factor: Tensor | None) -> Tensor:
        """(V, b, N) rounded slopes times (V, N, c), in working precision."""
        product = multiply(as_input(slope, self.dtype), self.x)
        for by in (factor, self.factor):
            product = product if by is None else product.mul_(by)
        return product

    def collect(self, products: list[Tensor], diagonals: list[Tensor | None]) -> Tensor:
        """Blocks of products -> (V, B, q) for the rows ``u``; what the diagonal adds, in full precision."""
        product = products[0] if len(products) == 1 else torch.cat(products, dim=1)
        if self.summed and not self.sharded:
            product, factor = rounded(product, self.transport, everywhere=True)
            product = columns_to_rows(product, self.u.shape[2]).to(self.u.dtype)
            product = product if factor is None else product.mul_(factor)
        if diagonals[0] is not None:
            own = diagonals[0] if len(diagonals) == 1 else torch.cat(diagonals, dim=1)
            if self.summed and not self.sharded:
                own = own[:, rank() * self.u.shape[1] :][:, : self.u.shape[1]]
            product.addcmul_(self.u, own[..., None])
        return product


def rounded(x: Tensor, dtype: torch.dtype, everywhere: bool = False) -> tuple[Tensor, Tensor | None]:
    """x in ``dtype``, and what to multiply by afterwards: float16 ends at 6e-5 and 65 504, so x is divided by its maximum.

    ``everywhere``: the maximum over ranks, for what travels between them.
    """
    if dtype != torch.float16 or x.dtype == dtype:
        return x.to(dtype), None
    largest = x.abs().amax().clamp_min(torch.finfo(x.dtype).tiny)
    largest = max_over_ranks(largest) if everywhere else largest
    return (x / largest).to(dtype), largest


def as_input(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as ``multiply`` takes it. A CPU has no half product that comes out in float32: there the digits are those of
    ``dtype``, and the dtype is float32."""
    x = x.to(dtype)
    return x if x.is_cuda or dtype not in HALVES else x.float()


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Batched a b of two ``as_input`` matrices, in float32 (float64 for float64), whatever autocast would make of it."""
    if a.device.type != 'meta' and torch.is_autocast_enabled(a.device.type):
        with torch.autocast(a.device.type, enabled=False):
            return multiply(a, b)
    return torch.bmm(a, b, out_dtype=torch.float32) if a.dtype in HALVES else torch.bmm(a, b)


def product(a: Tensor, b: Tensor, engine: Engine) -> Tensor:
    """a b of two matrices, forward and backward with inputs as ``engine`` rounds them: (m, n), (n, p) -> (m, p)."""
    return _Product.apply(a, b, engine)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, engine: Engine) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.engine = engine
        return _rounded_product(a, b, engine.dtype(a))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        refuse_second_derivative()
        (a, b), dtype = ctx.saved_tensors, ctx.engine.dtype(upstream)
        return _rounded_product(upstream, b.mT, dtype), _rounded_product(a.mT, upstream, dtype), None


def _rounded_product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    (a, of_a), (b, of_b) = rounded(a, dtype), rounded(b, dtype)
    made = multiply(as_input(a, dtype)[None], as_input(b, dtype)[None])[0]
    return made if of_a is None else made.mul_(of_a).mul_(of_b)
