"""Off-diagonal energy of cross-correlations and the products of its gradient, by the N x N or the q x q matrices.

Shapes: B local rows, N = B W global rows, q width, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmkernel.distributed import sum_over_ranks_, world_size
from mmkernel.kernels.gram import Engine, as_input, multiply, row_chunks
from mmkernel.kernels.layouts import arrange
from mmkernel.losses.moments import collect_into, own_rows, total, weighted_dot


@dataclass
class View:
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


def by_rows(views: list[View], pairs: list[tuple[int, int]], engine: Engine) -> tuple[Tensor, Tensor, float]:
    """Off-diagonal energy from <aa', bb'> / N^2 by blocks of rows, all views at once: (energy, (P, q) diagonals, scale)."""
    (B, q), a = views[0].x.shape, [view.rows(slice(None)) for view in views]
    N, diagonals = B * world_size(), _diagonals(views, a, pairs)
    layouts = [arrange(rows, engine) for rows in a]
    del a  # on several ranks, or in half precision, the layouts have their own
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
    return total(layouts[0], energy) / N**2 - diagonals.double().square().sum(), diagonals, q / N


def _diagonals(views: list[View], a: list[Tensor], pairs: list[tuple[int, int]]) -> Tensor:
    """(P, q) diagonals of C from standardised rows, made known to both partners. Those of the product have fewer digits."""
    x = a[0]
    C = torch.zeros(len(pairs), x.shape[1], dtype=torch.float64, device=x.device)
    for p, (i, j) in enumerate(pairs):
        for rows in row_chunks(x):
            C[p] += (a[i][rows] * a[j][rows]).sum(0)
    C = (sum_over_ranks_(C) / (x.shape[0] * world_size())).to(x.dtype)
    for c, (i, j) in zip(C, pairs, strict=True):
        views[i].partners.append((j, c))
        views[j].partners.append((i, c))
    return C


def _norms_of_rows(view: View, N: int, q: int) -> Tensor:
    """(q,) diagonal of a'bb'a / N^2, from the product bb'a."""
    norms = torch.zeros(q, dtype=torch.float64, device=view.x.device)
    for rows in row_chunks(view.x):
        a = view.rows(rows)
        norms += (view.product[rows] * q).addcmul_(a, view.diagonal[rows, None]).mul_(a).sum(0)
    return (sum_over_ranks_(norms) / N**2).to(view.x.dtype)


def by_columns(views: list[View], pairs: list[tuple[int, int]], engine: Engine) -> tuple[Tensor, Tensor, float]:
    """The same from C, summed over ranks; no row travels."""
    N, dtype = views[0].x.shape[0] * world_size(), engine.dtype(views[0].x)
    rows = [view.rows(slice(None)) for view in views]
    diagonals = _diagonals(views, rows, pairs)
    rows = [as_input(x, dtype) for x in rows]
    energy = torch.zeros((), dtype=torch.float64, device=diagonals.device)
    for i, j in pairs:
        C = sum_over_ranks_(multiply(rows[i].T, rows[j])).div_(N)  # (q, q)
        C.diagonal().zero_()
        energy += torch.linalg.vecdot(C, C).double().sum()
        for view, other, matrix in ((views[i], rows[j], C.T), (views[j], rows[i], C)):
            if view.product is not None:
                _add_product(view, other, as_input(matrix, dtype), torch.linalg.vecdot(matrix, matrix, dim=0))
    return energy, diagonals, 1.0


def _add_product(view: View, rows: Tensor, matrix: Tensor, norms: Tensor) -> None:
    """view.product += rows matrix; the first partner starts it."""
    if view.norms is not None:
        view.product.add_(multiply(rows, matrix))
    elif rows.dtype == view.product.dtype:
        torch.mm(rows, matrix, out=view.product)
    else:
        view.product.copy_(multiply(rows, matrix))
    view.norms = norms if view.norms is None else view.norms + norms
