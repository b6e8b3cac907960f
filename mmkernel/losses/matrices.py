"""Cholesky factors, roots and eigenvectors of covariances, and half-precision products, with gradients of their own.

The textbook backward of an eigendecomposition divides by l_i - l_j. For S^-1/2 those quotients combine into divided
differences that are smooth everywhere (Daleckii and Krein); they are written out here, so there is no division by a gap.
"""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmkernel.kernels.layouts import Engine, as_input, multiply, refuse_second_derivative, rounded


def inverse_square_root(S: Tensor) -> Tensor:
    """S^-1/2 = U diag(l^-1/2) U' of positive definite matrices (..., q, q). The gradient is exact for repeated l too."""
    return _InverseSquareRoot.apply(S)


def eigenvectors(S: Tensor) -> Tensor:
    """U of S = U diag(l) U', (..., q, q): columns by descending l, with signs that make the diagonal of U positive.

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


def eigh(S: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and eigenvectors of S (..., q, q).

    Where S holds NaN or infinity, the vectors are NaN: a factorisation would raise, and on this rank alone.
    """
    sound = torch.linalg.vector_norm(S, ord=torch.inf, dim=(-2, -1), keepdim=True) < torch.inf
    values, U = torch.linalg.eigh(torch.where(sound, S, torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)))
    return values, torch.where(sound, U, torch.nan)


class _InverseSquareRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, S: Tensor) -> Tensor:
        values, U = eigh(S)
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
        values, U = eigh(S)
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
        of_S = U @ (quotient * (U.mT @ upstream)) @ U.mT
        return (of_S + of_S.mT) / 2


class SingularCovarianceWarning(RuntimeWarning):
    """A covariance was not positive definite in working precision, so a little of the identity was added."""


class Factor(NamedTuple):
    """L L' = S + shift I of covariances S (..., q, q)."""

    L: Tensor  # (..., q, q)
    shift: Tensor  # (...,) what was added to the diagonal
    jitter: Tensor  # (...,) that as a fraction of the mean variance; 0 normally
    pivots: Tensor  # (...,) the ratio of the extreme pivots (squares of the diagonal of L) of S as it came


@torch.no_grad()
def factor(S: Tensor) -> Factor:
    """The lower factor of each S, moved away from singularity where it has to be.

    The pivots lie between the extreme eigenvalues, in practice close to them, and cost nothing. Where they say that S is
    singular in working precision, twice that precision is added: jitter = 2 q eps |S|_F / mean variance. NaN where even
    this does not help.
    """
    precision = S.shape[-1] * torch.finfo(S.dtype).eps
    L, failed = torch.linalg.cholesky_ex(S)
    least, most = L.diagonal(dim1=-2, dim2=-1).square().aminmax(dim=-1)
    ratio = (least / most).masked_fill_(failed > 0, 0)
    shift = torch.linalg.vector_norm(S, dim=(-2, -1)).mul_(2 * precision).masked_fill_(ratio > precision, 0)
    jitter = shift / S.diagonal(dim1=-2, dim2=-1).mean(-1)
    return Factor(cholesky(add_to_diagonal(S, shift)), shift, jitter, ratio.clamp_(min=precision).reciprocal_())


def add_to_diagonal(S: Tensor, shift: Tensor) -> Tensor:
    """S + shift I for S (..., q, q) and one shift each."""
    return S + shift[..., None, None] * torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)


def cholesky(S: Tensor) -> Tensor:
    """The lower factor of S (..., q, q); NaN, not an error, where S is not positive definite."""
    L, failed = torch.linalg.cholesky_ex(S)
    return L.masked_fill((failed > 0)[..., None, None], torch.nan)


def warn_of_jitter(jitter: float, q: int, dtype: torch.dtype) -> None:
    """Where ``jitter``, the largest of ``Factor.jitter``, is not 0."""
    if jitter > 0:
        warnings.warn(
            f'Covariances of {q} dimensions are singular in {dtype}: up to {jitter:.1g} of the mean variance was added to their '
            'diagonal. Usual cause: collapsed dimensions. Raise sub_batch_size or shrinkage, or lower the learning rate.',
            SingularCovarianceWarning,
            stacklevel=3,
        )


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
