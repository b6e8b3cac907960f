"""Column means and variances of the global batch, and X'X or XX' of centred rows: whichever side is cheap.

||X'X||_F^2 = ||XX'||_F^2, so what a covariance matrix (q, q) says about its own size the Gram matrix (N, N) says too, and its
gradient 4 X X'X = 4 XX' X is one product with either. The smaller side is taken.

Shapes: V views, B local rows, N = B W global rows, q width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmkernel.distributed import check_equal_rows, rank, sum_over_ranks_, world_size
from mmkernel.kernels.gram import Engine, as_input, multiply, row_chunks, symmetric_gram
from mmkernel.kernels.layouts import Rows, arrange

_FIX = 'Raise train_dataloader.batch_size.'
NO_SECOND_DERIVATIVE = 'has no second derivative: call backward or autograd.grad without create_graph=True.'


@dataclass
class Moments:
    """Of the columns of V views, over the N rows of all ranks."""

    N: int
    mean: Tensor  # (V, q)
    squares: Tensor  # (V, q) sum_n (x_n - mean)^2


@torch.no_grad()
def column_moments(z: Tensor) -> Moments:
    """Means, then sums of squares about them, of (V, B, q) rows: two passes, exact where the mean is far from 0."""
    V, B, q = z.shape
    N = B * world_size()
    if N < 2:
        raise ValueError(f'A batch of {N} image has no variance; at least 2 are needed. {_FIX}')
    if world_size() > 1:
        check_equal_rows(z[0])
    mean = sum_over_ranks_(z.sum(1)) / N
    squares = torch.zeros(V, q, dtype=torch.float64, device=z.device)  # of many chunks
    for v in range(V):
        for rows in row_chunks(z[v]):
            x = z[v, rows] - mean[v]
            squares[v] += x.mul_(x).sum(0)
    return Moments(N, mean, sum_over_ranks_(squares).to(z.dtype))


@dataclass
class GramProduct:
    """What one view's second moments say: sum_ij K_ij^2 (K = XX' or X'X without its diagonal) and the gradient's product.

    With the diagonal apart, X X'X = ``scale`` * product + diagonal * X; of X'X nothing is apart and the diagonal is dropped.
    """

    energy: Tensor  # () float64
    product: Tensor | None  # (B, q)
    scale: float
    diagonal: Tensor | None  # (B,) |x_n|^2; None where X'X was made


def is_dual(N: int, q: int) -> bool:
    """Whether the (N, N) matrix is the smaller one."""
    return N <= q


def second_moments(x: Tensor, engine: Engine, out: Tensor | None = None) -> GramProduct:
    """``x``: (B, q) centred rows of this rank; ``out``: (B, q) to take the product, None if no gradient is needed."""
    return (_dual if is_dual(x.shape[0] * world_size(), x.shape[1]) else _primal)(x, engine, out)


def _dual(x: Tensor, engine: Engine, out: Tensor | None) -> GramProduct:
    """energy = ||XX'||_F^2 with the diagonal."""
    q, layout = x.shape[1], arrange(x, engine)
    energy = torch.zeros((), dtype=torch.float64, device=x.device)
    diagonal = x.new_empty(layout.rows.stop - layout.rows.start)
    product = None if out is None else layout.buffer(out)
    for block in layout.blocks():
        K = layout.gram(block)  # (b, N or, mirrored, what lies right of the diagonal)
        energy += weighted_dot(K, K, layout.mirrored)
        own = layout.diagonal(K, block)
        diagonal[block.start - layout.rows.start : block.stop - layout.rows.start] = own
        if out is not None:
            own.zero_()  # q times the other entries: in half precision it would drown them
            layout.accumulate(product, K.div_(q), block)
    collect_into(out, product, layout)
    return GramProduct(total(layout, energy), out, q, own_rows(layout, diagonal, x.shape[0]))


def _primal(x: Tensor, engine: Engine, out: Tensor | None) -> GramProduct:
    """energy = ||X'X||_F^2 without the diagonal; the ranks' matrices are summed, no row travels."""
    N, rounded = x.shape[0] * world_size(), as_input(x, engine.dtype(x))
    C = sum_over_ranks_(symmetric_gram(rounded.T))  # (q, q)
    C.diagonal().zero_()
    energy = torch.linalg.vecdot(C, C).double().sum()
    if out is not None:
        out.copy_(multiply(rounded, as_input(C.div_(N), engine.dtype(x))))
    return GramProduct(energy, out, N, None)


def weighted_dot(K: Tensor, M: Tensor, mirrored: bool) -> Tensor:
    """sum of K M over a block of rows, what is right of its square twice if mirrored; rows in working precision."""
    b = K.shape[0]
    dot = torch.linalg.vecdot(K, M)
    if mirrored and K.shape[1] > b:
        dot += torch.linalg.vecdot(K[:, b:], M[:, b:])
    return dot.double().sum()


def collect_into(out: Tensor | None, product: Tensor | None, layout: Rows) -> None:
    """What ``accumulate`` made in ``layout.buffer(out)`` -> ``out``."""
    if product is not None and (product := layout.collect(product)) is not out:
        out.copy_(product)


def total(layout: Rows, energy: Tensor) -> Tensor:
    """Each rank's share -> the sum over the whole N x N matrix."""
    return energy if layout.mirrored else sum_over_ranks_(energy)


def own_rows(layout: Rows, values: Tensor, B: int) -> Tensor:
    """The entries of this rank's B rows of a vector over ``layout.rows``."""
    return values if len(values) == B else values[rank() * B : (rank() + 1) * B]
