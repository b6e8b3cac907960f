"""Cholesky factors of covariances, with a watch on how singular they are."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

_JITTERS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


class SingularCovarianceWarning(RuntimeWarning):
    """A covariance was not positive definite in working precision, so a little of the identity was added."""


@torch.no_grad()
def factor(S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L of S (..., q, q), the jitter each S needs (with it, L is void), and the condition number of the worst S.

    Eigenvalues cost more than the whole loss, but the squared diagonal of L lies between the extreme ones, and close
    to them in practice: it says which S is the worst, of which alone they are computed, and whether any needs jitter.
    """
    L, failed = torch.linalg.cholesky_ex(S)
    pivots = L.diagonal(dim1=-2, dim2=-1).square()
    spread = torch.where(failed > 0, 0, pivots.amin(-1) / pivots.amax(-1)).nan_to_num()  # (...)
    if bool((spread < 1e3 * S.shape[-1] * torch.finfo(S.dtype).eps).any()):
        jitter, condition = conditioning(S)
        return L, jitter, condition.max()
    worst = S.flatten(0, -3)[spread.flatten().argmin()] if S.ndim > 2 else S
    return L, torch.zeros_like(spread), conditioning(worst)[1]


@torch.no_grad()
def conditioning(S: Tensor) -> tuple[Tensor, Tensor]:
    """Jitter that each covariance (..., q, q) needs, as a fraction of its mean variance, and its condition number."""
    q = S.shape[-1]
    values = torch.linalg.eigvalsh(S)  # ascending
    largest, smallest = values[..., -1], values[..., 0]
    precision = q * torch.finfo(S.dtype).eps
    mean_variance = values.mean(-1)
    jitter = torch.zeros_like(largest)
    for step in _JITTERS:
        sound = smallest + jitter * mean_variance > precision * largest
        jitter = torch.where(sound, jitter, torch.full_like(jitter, step))
    jitter = torch.where(largest > 0, jitter, torch.ones_like(jitter))  # no variance at all
    return jitter, largest / smallest.clamp_min(precision * largest).clamp_min(torch.finfo(S.dtype).tiny)


def warn_of_jitter(jitter: Tensor, S: Tensor) -> None:
    warnings.warn(
        f'{int((jitter > 0).sum())} of {jitter.numel()} covariances ({S.shape[-1]} x {S.shape[-1]}) are singular in '
        f'{S.dtype}: added up to {float(jitter.max()):g} of the mean variance to their diagonal. Usual cause: collapsed '
        'dimensions. Raise sub_batch_size or shrinkage, or lower the learning rate.',
        SingularCovarianceWarning,
        stacklevel=3,
    )
