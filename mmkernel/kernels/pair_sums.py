"""sum_{i != j} phi(z_i.z_j) of each view, and its gradient, with the sphere folded into the N x N matrix.

With raw rows x_i, r_i = 1/||x_i||, t_ij = r_i r_j x_i.x_j and P = phi'(t) off the diagonal, the gradient of
sum_{i != j} phi(t_ij) is 2 M X with M_ij = r_i r_j P_ij and M_ii = -r_i^2 sum_{j != i} P_ij t_ij: normalisation, its backward
and the diagonal all live in the N x N matrix, which is made one block of rows at a time (``layouts.py``). Polynomials of
degree 1 and 2 need no such matrix (``moments.py``).

Shapes: V views, B local rows, N = B W global rows, q width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmkernel.distributed import check_equal_rows, gather_rows, rank, sum_over_ranks_, world_size
from mmkernel.kernels.gram import Engine, row_chunks
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.layouts import Rows, arrange
from mmkernel.kernels.moments import moment_sums, moments_suffice


def energies_and_gradient(
    z: Tensor, r: Tensor, kernel: Kernel, statistic: str, engine: Engine, need_gradient: bool = True
) -> tuple[Tensor, Tensor | None]:
    """The (V,) energies of the global batch, and half the gradient of the sum over pairs at this rank's rows. No graph."""
    V, B, q = z.shape
    N = B * world_size()
    gradient = torch.empty_like(z, memory_format=torch.contiguous_format) if need_gradient else None
    phi_at_one = _value_on_diagonal(kernel, q) if statistic == 'V' else None
    monomials = kernel.monomials(q)
    if moments_suffice(monomials, N, q):
        if world_size() > 1:
            check_equal_rows(z[0])
        totals = moment_sums(z, r, monomials, gradient) - N * kernel.value_at_one(q)
    else:
        R = gather_rows(r.T).T.contiguous()  # (V, N)
        totals = torch.stack(
            [_pair_sum(z[v], R[v], kernel, engine, None if gradient is None else gradient[v]) for v in range(V)]
        )
    energies = totals / number_of_pairs(statistic, N)
    if statistic == 'V':
        energies = energies + phi_at_one / N
    return energies.to(z.dtype), gradient


def number_of_pairs(statistic: str, N: int) -> int:
    """How many (i, j) a statistic counts."""
    return N * N if statistic == 'V' else N * (N - 1)


def _value_on_diagonal(kernel: Kernel, q: int) -> float:
    value = kernel.value_at_one(q)
    if not math.isfinite(value):
        raise ValueError(
            f"{type(kernel).__name__} has phi(1) = {value}: the 'V' statistic counts each point against itself. Use statistic='U'."
        )
    return value


def _pair_sum(x: Tensor, R: Tensor, kernel: Kernel, engine: Engine, gradient: Tensor | None) -> Tensor:
    """sum_{i != j} phi(t_ij) of the global batch; half its gradient at the rows ``x`` into ``gradient``."""
    own = slice(rank() * x.shape[0], (rank() + 1) * x.shape[0])
    # Rows that will be rounded are put on the sphere first, out of reach of float16's ends; others stay where they are.
    unit = engine.rounds(x)
    layout = arrange(x * R[own, None] if unit else x, engine)
    scale = torch.ones_like(R) if unit else R
    radial = torch.zeros_like(R)  # sum_j P_ij t_ij
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    made = None if gradient is None else layout.buffer(gradient)
    for block in layout.blocks():
        t = layout.gram(block)
        total += _fold(t, block, layout, scale, radial, kernel, x.shape[1], gradient is not None)
        if gradient is not None:
            if not unit:
                layout.diagonal(t, block).copy_(-radial[block] * R[block] ** 2)
            layout.accumulate(made, t, block)
        del t  # before the next one is made
    if gradient is not None:
        place_gradient(layout.collect(made), x, R[own], radial[own], unit, gradient)
    return total if layout.mirrored else sum_over_ranks_(total)


def _fold(
    t: Tensor, block: slice, layout: Rows, scale: Tensor, radial: Tensor, kernel: Kernel, q: int, slopes: bool
) -> Tensor:
    """Overwrite a block of x_i.x_j with M off the diagonal, 0 on it; return its share of sum phi; add to ``radial``."""
    columns = layout.columns(block)
    twice = slice(block.stop - block.start if layout.mirrored else t.shape[1], None)  # columns that stand for two pairs
    total = torch.zeros((), dtype=torch.float64, device=t.device)
    for chunk in row_chunks(t):
        rows, c = slice(block.start + chunk.start, block.start + chunk.stop), t[chunk]
        diagonal = rows.start - columns.start
        c.mul_(scale[rows, None]).mul_(scale[columns]).clamp_(-1, 1)
        c.diagonal(diagonal).zero_()  # t_ii = 1 exactly; handled apart, where phi' may be infinite
        values = kernel.phi(c, q)
        values.diagonal(diagonal).zero_()
        # Rows in the working precision, their sum in double: one flat float32 sum of N^2 terms loses 5 digits.
        total += (values.sum(1) + values[:, twice].sum(1)).double().sum()
        if slopes:
            P = kernel.dphi(c, q)
            P.diagonal(diagonal).zero_()
            Pt = P * c
            radial[rows] += Pt.sum(1)
            if layout.mirrored:
                radial[block.stop :] += Pt[:, twice].sum(0)
            torch.mul(P, scale[rows, None], out=c).mul_(scale[columns])
    return total


def place_gradient(made: Tensor, x: Tensor, r: Tensor, radial: Tensor, unit: bool, gradient: Tensor) -> None:
    """Gradient rows where they belong; after a rounded product, with the diagonal and the norm's factor in full precision."""
    if not unit:
        if made is not gradient:
            gradient.copy_(made)
        return
    for chunk in row_chunks(x):
        torch.mul(made[chunk], r[chunk, None], out=gradient[chunk])
        gradient[chunk].addcmul_(x[chunk], (radial[chunk] * r[chunk] ** 2)[:, None], value=-1)
