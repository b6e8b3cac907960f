"""Entropy of a cloud on the sphere, by its neighbours: leave-one-out kernel densities, and nearest neighbours.

Both are the mean over rows of the logarithm of a density that the other rows make at this one: least for a uniform
cloud.

Shapes: V views, B local rows, N = B W rows of all ranks, q width, b rows of a block. Rows are raw: normalised here.
Gradients as ``mmkernel.distributed`` rules.
"""

import math
from typing import Any

import torch
from torch import Tensor

from mmkernel.checks import check_views
from mmkernel.distributed import gather_rows_with_gradient, global_mean, rank, world_size
from mmkernel.kernels import Kernel
from mmkernel.kernels.engine import Engine, fused_whole, itself, pairwise
from mmkernel.kernels.layouts import rows_at_a_time
from mmkernel.kernels.legendre import check_dimension
from mmkernel.kernels.sphere import to_sphere, unit_rows
from mmkernel.losses.precision import full_precision


@full_precision
def leave_one_out_log_density(z: Tensor, kernel: Kernel, **options: Any) -> Tensor:
    """mean_i log (1/(N-1)) sum_{j != i} phi(u_i.u_j):  (V, B, q) -> (V,), over the rows of all ranks.

    Minus the entropy as Joe, 1989, estimates it with a kernel density; up to a constant the Kullback-Leibler divergence
    to the uniform distribution. With phi = r^-s and s -> infinity, (1/s) of it is that of nearest neighbours.

    ``options``: those of ``mmkernel.kernels.engine.Engine``. ValueError: one row, q < 2, or a kernel that can be < 0.
    """
    N = _count(z)
    q = check_dimension(z.shape[2])
    _check_kernel(kernel, q)
    return fused_whole(_leave_one_out, z, kernel, Engine(**options)) - math.log(N - 1)


def _check_kernel(kernel: Kernel, q: int) -> None:
    """ValueError unless phi >= 0 on [-1, 1], as a density is, but for rounding."""
    least = kernel.minimum(q)
    if least < -1e-12 * abs(kernel.value_at_one(q)):
        raise ValueError(
            f'A density needs a kernel with phi >= 0 on [-1, 1]; {type(kernel).__name__} goes down to {least:.3g} at '
            f'q = {q}. Use a positive kernel such as RBFKernel.'
        )


def _leave_one_out(z: Tensor, kernel: Kernel, engine: Engine) -> Tensor:
    u = to_sphere(z, ())[0]
    constants, N = (kernel, z.shape[2]), z.shape[1] * world_size()
    return pairwise(u, _log_sums, constants, _sums, engine, scale=1 / N)


def _sums(G: Tensor, first: int, columns: Tensor, kernel: Kernel, q: int) -> Tensor:
    """s_i = sum_{j != i} phi(t_ij): (V, b, N) -> (V, b); never 0, should phi underflow for every neighbour."""
    values = kernel.phi(G.clamp(-1, 1), q).masked_fill(itself(first, G.shape[1], columns), 0)
    return values.sum(-1).clamp_min(torch.finfo(G.dtype).tiny)


def _log_sums(
    G: Tensor, first: int, columns: Tensor, kernel: Kernel, q: int, s: Tensor, every_s: Tensor
) -> tuple[Tensor, Tensor, None]:
    """log s_i, and phi'(t_ij) (1/s_i + 1/s_j) / 2 beside the diagonal."""
    shares = (s.reciprocal()[..., None] + every_s.reciprocal()[:, None]) / 2  # (V, b, N)
    slope = kernel.dphi(G.clamp(-1, 1), q) * shares
    return s.log(), slope.masked_fill(itself(first, G.shape[1], columns), 0), None


@full_precision
def nearest_neighbour_log_density(z: Tensor, eps: float = 1e-8) -> Tensor:
    """-mean_i log( ||u_i - u_n(i) + eps|| + eps ),  n(i) the nearest other row:  (V, B, q) -> (V,), over all ranks.

    Kozachenko & Leonenko, 1987, as trained by Sablayrolles et al., Spreading vectors for similarity search, ICLR 2019.
    ``eps`` is added to each coordinate of the difference, and to the distance. The gradient reaches both rows of a
    pair. Two equal rows push each other by 1 / eps, and the sum is 0: distances are made in float64, so that the
    push of the others survives it.
    """
    _count(z)
    rows = unit_rows(z)
    u = rows.double()
    others = gather_rows_with_gradient(u.transpose(0, 1)).transpose(0, 1)  # (V, N, q)
    V, N, q = others.shape
    views = torch.arange(V, device=z.device)[:, None] * N
    nearest = (views + _nearest(rows.detach(), others.detach().to(z.dtype))).flatten()
    neighbours = others.reshape(V * N, q)[nearest].view_as(u)  # indexed so, backward adds in one and the same order
    distance = torch.linalg.vector_norm(u - neighbours + eps, dim=-1) + eps
    return global_mean(-distance.log().mean(1)).to(z.dtype)


def _nearest(u: Tensor, others: Tensor) -> Tensor:
    """(V, B, q), (V, N, q) -> (V, B): the row with the greatest inner product that is not the row itself."""
    V, B, _ = u.shape
    columns = torch.arange(others.shape[1], device=u.device)
    found, first = [], rank() * B
    for block in u.split(rows_at_a_time(V * len(columns), u), dim=1):
        scores = block @ others.mT  # (V, b, N)
        found.append(scores.masked_fill_(itself(first, block.shape[1], columns), -torch.inf).argmax(-1))
        first += block.shape[1]
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def _count(z: Tensor) -> int:
    """N of (V, B, q). ValueError for another shape, or one row."""
    check_views(z)
    N = z.shape[1] * world_size()
    if N < 2:
        raise ValueError(
            f'A batch of {N} image has no neighbours; at least 2 are needed. Raise train_dataloader.batch_size.'
        )
    return N
