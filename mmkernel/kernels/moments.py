"""Energies of polynomial kernels of degree 1 and 2 without a Gram matrix: sum_ij t_ij = ||s||^2, sum_ij t_ij^2 = ||C||_F^2.

s = sum_i u_i and C = sum_i u_i u_i' over the N normalised rows u_i = r_i x_i. Moments add up over ranks: nothing is gathered.
Always in float32 (float64 for float64): products with C cost N q^2, little where they are used.

Shapes: V views, B local rows, N global rows, q width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkernel.distributed import sum_over_ranks_, world_size
from mmkernel.kernels.gram import row_chunks

_STRIP = 512  # rows that are normalised at a time for a product


def moments_suffice(monomials: tuple[float, ...] | None, N: int, q: int) -> bool:
    """Degree 1 always; degree 2 where C is smaller than the Gram matrix."""
    return monomials is not None and (len(monomials) <= 2 or (len(monomials) == 3 and q < N))


def moment_sums(z: Tensor, r: Tensor, monomials: tuple[float, ...], gradient: Tensor | None) -> Tensor:
    """sum_ij a_0 + a_1 t_ij + a_2 t_ij^2 over the N^2 pairs of each view: (V, B, q), (V, B) -> (V,) float64.

    ``gradient``: (V, B, q), overwritten with half the gradient at this rank's rows; None if not wanted.
    """
    a0, a1, a2 = (*monomials, 0.0, 0.0)[:3]
    V, B, q = z.shape
    N = B * world_size()
    s = sum_over_ranks_(torch.stack([_first_moment(x, n) for x, n in zip(z, r, strict=True)]))  # (V, q) float64
    totals = a0 * N * N + a1 * s.square().sum(1)
    for v in range(V):
        direction = (a1 * s[v]).to(z.dtype)  # h_i = a_1 s + 2 a_2 C u_i; half the gradient is r_i (h_i - (h_i.u_i) u_i)
        C = None
        if a2:
            # About its value N/q for uniform points, whose share in C u_i the tangent projection removes anyway:
            # ||C||^2 = ||C - N/q||^2 + N^2/q, since tr C = N.
            C = sum_over_ranks_(_second_moment(z[v], r[v]))
            C.diagonal().sub_(N / q)
            totals[v] += a2 * (C.square().sum(1).double().sum() + N * N / q)
        if gradient is not None:
            _tangent_gradient(z[v], r[v], direction, C, 2 * a2, gradient[v])
    return totals


def _first_moment(x: Tensor, r: Tensor) -> Tensor:
    s = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for chunk in row_chunks(x):
        s += x[chunk].T @ r[chunk]
    return s


def _second_moment(x: Tensor, r: Tensor) -> Tensor:
    C = x.new_zeros(x.shape[1], x.shape[1])
    for i in range(0, len(x), _STRIP):
        u = x[i : i + _STRIP] * r[i : i + _STRIP, None]
        C.addmm_(u.T, u)
    return C


def _tangent_gradient(x: Tensor, r: Tensor, direction: Tensor, C: Tensor | None, weight: float, out: Tensor) -> None:
    """out_i = r_i (h_i - (h_i.u_i) u_i), h_i = direction + weight C u_i."""
    if C is not None:
        torch.mm(x, C, out=out)
    for chunk in row_chunks(x):
        rows, n, g = x[chunk], r[chunk], out[chunk]
        if C is None:
            torch.mul(rows, (-(rows @ direction) * n**3)[:, None], out=g)
            g.addr_(n, direction)
        else:
            g.mul_(weight * n[:, None]).add_(direction)
            g.addcmul_(rows, (torch.linalg.vecdot(g, rows) * n**2)[:, None], value=-1).mul_(n[:, None])
