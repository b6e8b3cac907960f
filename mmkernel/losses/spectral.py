"""Functions of symmetric matrices whose gradients survive close eigenvalues.

The textbook backward of an eigendecomposition divides by l_i - l_j. For S^-1/2 those quotients combine into divided
differences that are smooth everywhere (Daleckii and Krein); they are written out here, so nothing is ever divided by a gap.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkernel.kernels.products import refuse_second_derivative
from mmkernel.losses.conditioning import finite_or_identity


def inverse_square_root(S: Tensor) -> Tensor:
    """S^-1/2 = U diag(l^-1/2) U' of positive definite matrices (..., q, q). The gradient is exact for repeated l too."""
    return _InverseSquareRoot.apply(S)


def eigenvectors(S: Tensor) -> Tensor:
    """U of S = U diag(l) U', (..., q, q): columns by descending l, signs such that the diagonal of U is positive.

    The derivative does not exist where two eigenvalues meet. 1/(l_i - l_j) is replaced by d/(d^2 + e^2) with
    e = 1e-6 (float64: 1e-12) of the largest eigenvalue, so the gradient is exact for gaps well above e and bounded below.
    """
    return _Eigenvectors.apply(S)


def inverse_square_root_newton(S: Tensor, iterations: int = 5) -> Tensor:
    """S^-1/2 by the coupled-free Newton-Schulz iteration P <- (3 P - P^3 S/tr S) / 2, then divided by sqrt(tr S).

    Huang et al., Iterative normalization, CVPR 2019. Products only; approximate: directions of little variance are
    whitened less. (..., q, q) -> (..., q, q).
    """
    if iterations < 1:
        raise ValueError(f'Newton-Schulz needs iterations >= 1, got {iterations}.')
    q = S.shape[-1]
    trace = S.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    A = (S / trace).reshape(-1, q, q)
    P = torch.eye(q, dtype=S.dtype, device=S.device).mul_(1.5).sub(A, alpha=0.5)  # from P = I
    for _ in range(iterations - 1):
        P = torch.baddbmm(P, P @ P @ P, A, beta=1.5, alpha=-0.5)
    return P.view_as(S) * trace.rsqrt()


def _eigh(S: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and eigenvectors; the latter NaN, not an error, where S holds NaN or infinity."""
    S, sound = finite_or_identity(S)
    values, U = torch.linalg.eigh(S)
    return values, torch.where(sound, U, torch.nan)


class _InverseSquareRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, S: Tensor) -> Tensor:
        values, U = _eigh(S)
        resolution = S.shape[-1] * torch.finfo(S.dtype).eps * values[..., -1:]  # rounding may give less, even below 0
        roots = values.maximum(resolution).sqrt()
        ctx.save_for_backward(U, roots)
        return (U / roots[..., None, :]) @ U.mT

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        refuse_second_derivative()
        U, roots = ctx.saved_tensors
        a, b = roots[..., :, None], roots[..., None, :]
        # (x^-1/2 - y^-1/2) / (x - y) = -1 / (a b (a + b)) with a = sqrt(x), b = sqrt(y); half of it, for G + G'
        inner = (U.mT @ (upstream + upstream.mT) @ U).div_((a * b).mul_(a + b).mul_(-2))
        return U @ inner @ U.mT


class _Eigenvectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, S: Tensor) -> Tensor:
        values, U = _eigh(S)
        values, U = values.flip(-1), U.flip(-1)
        diagonal = U.diagonal(dim1=-2, dim2=-1)
        U = U * torch.where(diagonal < 0, -1.0, 1.0).to(U.dtype)[..., None, :]
        ctx.save_for_backward(values, U)
        return U

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        refuse_second_derivative()
        values, U = ctx.saved_tensors
        gap = values[..., None, :] - values[..., :, None]  # l_j - l_i
        resolution = (1e-12 if values.dtype == torch.float64 else 1e-6) * values.abs().amax(-1)[..., None, None]
        quotient = gap / (gap.square() + resolution.square()).clamp_min(torch.finfo(values.dtype).tiny)
        return _symmetric(U @ (quotient * (U.mT @ upstream)) @ U.mT)


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2
