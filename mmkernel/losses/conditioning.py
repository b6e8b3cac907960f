"""Cholesky factors of covariances, with a watch on how singular they are. Nothing here waits for the device."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor


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

    The pivots lie between the extreme eigenvalues, and close to them in practice, at no cost. Where they say that S is
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


def finite_or_identity(S: Tensor) -> tuple[Tensor, Tensor]:
    """S (..., q, q) with the identity in place of matrices that hold NaN or infinity, and which were sound (..., 1, 1).

    A factorisation of those would raise, on this rank alone; what was not sound has to come out as NaN.
    """
    sound = torch.linalg.vector_norm(S.detach(), ord=torch.inf, dim=(-2, -1), keepdim=True) < torch.inf
    return torch.where(sound, S, torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)), sound


@torch.no_grad()
def condition_number(S: Tensor) -> Tensor:
    """Largest over smallest eigenvalue of each covariance (..., q, q), at most 1 / (q eps)."""
    values = torch.linalg.eigvalsh(S)  # ascending
    return values[..., -1] / values[..., 0].maximum(values[..., -1] * (S.shape[-1] * torch.finfo(S.dtype).eps))


def warn_of_jitter(jitter: float, q: int, dtype: torch.dtype) -> None:
    """Where ``jitter``, the largest of ``Factor.jitter``, is not 0."""
    if jitter > 0:
        warnings.warn(
            f'Covariances of {q} dimensions are singular in {dtype}: up to {jitter:.1g} of the mean variance was added to their '
            'diagonal. Usual cause: collapsed dimensions. Raise sub_batch_size or shrinkage, or lower the learning rate.',
            SingularCovarianceWarning,
            stacklevel=3,
        )
