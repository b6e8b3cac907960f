"""Energy of a cloud of embeddings under a kernel: (1/N^2) sum_ij phi(z_i.z_j), its value and gradient in one pass.

With raw rows x_i, r_i = 1/||x_i||, t_ij = r_i r_j x_i.x_j and P = phi'(t) off the diagonal, the gradient of
sum_{i != j} phi(t_ij) is 2 M X with M_ij = r_i r_j P_ij and M_ii = -r_i^2 sum_{j != i} P_ij t_ij: normalisation, its backward
and the diagonal all live in the N x N matrix, which is made one block of rows at a time.

Shapes: B local rows, N = B W global rows, q width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mmkernel.distributed import gather_rows, rank, sum_over_ranks, world_size
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.legendre import check_dimension

_BLOCK_ENTRIES = 2**23  # of the N x N matrix at a time: 32 MB in float32


def kernel_energy(z: Tensor, kernel: Kernel, statistic: str = 'V') -> Tensor:
    """V: (1/N^2) sum_{i,j} phi(z_i.z_j);  U: 1/(N(N-1)) sum_{i != j} phi(z_i.z_j), over the N rows of all ranks.

    Zheng et al., ICLR 2023 (V statistic); Wang & Isola, ICML 2020 (U statistic, before its logarithm).

    Args:
        z: (B, q) this rank's raw embeddings, equal B on every rank; normalised here. Half precision is computed in float32.
        kernel: phi and its slope.
        statistic: 'V' keeps the diagonal (biased by (phi(1) - b_0)/N, never below b_0), 'U' leaves it out (unbiased).

    Returns:
        A scalar: the energy of the global batch on every rank; gradients as ``mmkernel.distributed`` rules.

    Raises:
        ValueError: not a (B, q) matrix, q < 2, one row, NaN rows (on CPU), or phi(1) infinite under 'V'.
    """
    _check_rows(z)
    if statistic not in ('V', 'U'):
        raise ValueError(f"statistic is 'V' (all pairs) or 'U' (i != j), got {statistic!r}.")
    z = z if z.dtype == torch.float64 else z.float()
    value = _Energy.apply(z, kernel, statistic)
    if value.device.type == 'cpu' and not torch.isfinite(value):
        _explain_non_finite(z, kernel)
    return value


def mmd2_to_uniform(z: Tensor, kernel: Kernel, statistic: str = 'V') -> Tensor:
    """MMD^2(Q, uniform) = E K(z, z') - b_0 = sum_{l >= 1} b_l E P_l(z.z').

    'V': the squared distance of the empirical distribution, >= 0 for a positive definite kernel; uniform points give about
    sum_{l>=1} b_l / N. 'U': unbiased, zero in the mean for uniform points, may be negative.
    """
    return kernel_energy(z, kernel, statistic) - float(kernel.coefficients(z.shape[-1], 0)[0])


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, kernel: Kernel, statistic: str) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            value, gradient = energy_and_gradient(z, kernel, statistic, ctx.needs_input_grad[0])
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if (
            torch.is_grad_enabled()
        ):  # create_graph=True: the gradient was made without a graph and would pass for a constant
            raise RuntimeError(
                'kernel_energy has no second derivative: call backward or autograd.grad without create_graph=True.'
            )
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def energy_and_gradient(
    z: Tensor, kernel: Kernel, statistic: str, need_gradient: bool = True
) -> tuple[Tensor, Tensor | None]:
    """The energy of the global batch and W times its gradient at this rank's rows (None if not needed). No graph."""
    B, q = z.shape
    Z = gather_rows(z)  # (N, q)
    N = Z.shape[0]
    r = Z.norm(dim=1).clamp_min(1e-12).reciprocal()  # (N,)
    start = rank() * B
    rows = max(1, _BLOCK_ENTRIES // N)
    gradient = torch.empty_like(z) if need_gradient else None
    total = torch.zeros((), dtype=torch.float64, device=z.device)
    for first in range(0, B, rows):
        own = slice(start + first, start + min(first + rows, B))
        t = (Z[own] @ Z.T).mul_(r[own, None]).mul_(r).clamp_(-1, 1)  # (b, N)
        _diagonal(t, own.start).zero_()  # t_ii = 1 exactly; handled apart, where phi' may be infinite
        values = kernel.phi(t, q)
        _diagonal(values, own.start).zero_()
        # Rows in the working precision, their sum in double: one flat float32 sum of N^2 terms loses 5 digits.
        total += values.sum(1).double().sum()
        if need_gradient:
            del values
            P = kernel.dphi(t, q)
            _diagonal(P, own.start).zero_()
            radial = -(P * t).sum(1) * r[own] ** 2
            M = P.mul_(r[own, None]).mul_(r)
            _diagonal(M, own.start).copy_(radial)
            torch.mm(M, Z, out=gradient[first : first + M.shape[0]])
    pairs = N * N if statistic == 'V' else N * (N - 1)
    energy = sum_over_ranks(total) / pairs
    if statistic == 'V':
        energy = energy + _value_on_diagonal(kernel, q) / N
    if need_gradient:
        gradient *= 2 * world_size() / pairs
    return energy.to(z.dtype), gradient


def _diagonal(block: Tensor, offset: int) -> Tensor:
    """A view of the entries (i, offset + i) of a block of rows of an N x N matrix."""
    return block.diagonal(offset)


def _value_on_diagonal(kernel: Kernel, q: int) -> float:
    value = kernel.value_at_one(q)
    if not math.isfinite(value):
        raise ValueError(
            f"{type(kernel).__name__} has phi(1) = {value}: the 'V' statistic counts each point against itself. Use statistic='U'."
        )
    return value


def _check_rows(z: Tensor) -> None:
    if z.ndim != 2:
        raise ValueError(f'Expected embeddings of shape (B, q), got {tuple(z.shape)}. One view at a time.')
    check_dimension(z.shape[1])
    if z.shape[0] * world_size() < 2:
        raise ValueError(
            f'A batch of {z.shape[0] * world_size()} image says nothing about a distribution; at least 2 are needed. '
            'Raise train_dataloader.batch_size.'
        )


def _explain_non_finite(z: Tensor, kernel: Kernel) -> None:
    bad = (~torch.isfinite(z)).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f'Embeddings hold NaN or infinity in {len(bad)} of {z.shape[0]} rows, first in row {bad[0]}. '
            'Usual causes: too high a learning rate, half precision without loss scaling, a corrupt image.'
        )
    raise ValueError(f'The energy under {kernel} is not finite although the embeddings are: check phi on [-1, 1].')
