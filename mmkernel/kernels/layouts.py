"""How the big products of a pairwise objective are made: precision, and how the rows lie on several ranks.

A product may have half-precision inputs; it accumulates and comes out in float32.

Shapes: V views, B local rows, N = B W rows of all ranks, q width, b rows of a block.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmkernel.checks import check_words
from mmkernel.distributed import (
    columns_to_rows,
    gather_rows,
    max_over_ranks,
    rank,
    rows_to_columns,
    sum_over_ranks_,
    world_size,
)

HALVES = (torch.bfloat16, torch.float16)
_DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
PRECISIONS = ('auto', *_DTYPES)
LAYOUTS = ('auto', 'rows', 'columns')
TRANSPORTS = (None, 'bfloat16', 'float16')
BLOCK_ENTRIES = dict(cpu=2**21, cuda=2**26)  # of a large matrix at a time: 8 and 256 MB in float32


def rows_at_a_time(columns: int, like: Tensor, passes: int = 1) -> int:
    """Rows of a matrix with that many columns in one block, where ``like`` lives; ``passes`` times as many."""
    return max(1, passes * BLOCK_ENTRIES.get(like.device.type, BLOCK_ENTRIES['cuda']) // max(1, columns))


@dataclass(frozen=True)
class Engine:
    """The three words that every pairwise objective and its head take, and how the embeddings lie.

    Args:
        precision: of the inputs of the products: 'float32', 'bfloat16', 'float16', or 'auto', the half precision in which
            the encoder made the embeddings where they live on a GPU, else float32. float64 embeddings stay float64.
        layout: how N rows lie on W ranks. 'rows': each rank gathers all rows and makes its B x N block of the Gram matrix;
            'columns': each rank holds q/W columns of all rows, and the ranks' partial Gram matrices are summed.
            'auto': rows on one rank, else columns if q >= 4 N.
        columns: q, where embeddings are columns of all rows already (``mmkernel.distributed.shards``).
        transport_dtype: None, or the half precision in which rows travel between ranks.
    """

    precision: str = 'auto'
    layout: str = 'auto'
    transport_dtype: str | None = None
    columns: int | None = None

    def __post_init__(self) -> None:
        check_words(precision=(self.precision, PRECISIONS), layout=(self.layout, LAYOUTS))
        check_words(transport_dtype=(self.transport_dtype, TRANSPORTS))

    def options(self, z: Tensor, computed_in: torch.dtype | None = None, columns: int | None = None) -> dict[str, Any]:
        """The keywords for promoted embeddings ``z`` that were computed in another dtype: 'auto' becomes that one."""
        precision = self.precision
        if precision == 'auto' and z.is_cuda and computed_in in HALVES:
            precision = str(computed_in).removeprefix('torch.')
        return dict(precision=precision, layout=self.layout, transport_dtype=self.transport_dtype, columns=columns)

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


class Rows:
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

    def blocks(self, passes: int) -> list[slice]:
        """Slices of ``mine``, each of at most BLOCK_ENTRIES (and one row at least) in the matrices of all views.

        Twice that in two passes, for which every block but an only one is made twice.
        """
        first, last = self.mine.start, self.mine.stop
        parts = -(-(last - first) // rows_at_a_time(len(self.x) * self.count, self.x, passes))
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

    def buffer(self) -> Tensor:
        """Memory for the products of several blocks."""
        return self.u.new_empty(len(self.x), self.mine.stop - self.mine.start, self.x.shape[2])

    def product(self, slope: Tensor, factor: Tensor | None, block: slice, buffer: Tensor | None) -> Tensor:
        """(V, b, N) rounded slopes times (V, N, c), in working precision; into ``buffer`` if there is one."""
        product = multiply(as_input(slope, self.dtype), self.x)
        for by in (factor, self.factor):
            product = product if by is None else product.mul_(by)
        if buffer is None:
            return product
        buffer[:, block.start - self.mine.start : block.stop - self.mine.start] = product
        return buffer

    def collect(self, product: Tensor, diagonals: list[Tensor | None]) -> Tensor:
        """The product -> (V, B, q) for the rows ``u``; and what the diagonal adds, in full precision."""
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
