"""Terms that keep the dimensions of an embedding spread and uncorrelated: moments of the batch, first power and second.

Scalars take this rank's rows and are those of the global batch, by the cheaper side of a Gram matrix; gradients as
``mmkernel.distributed`` rules. Several terms of several views at once: ``variance_covariance.py`` and
``cross_correlation.py``. Functions that return a matrix or rows are plain: they see the rows that they are given.

Shapes: N rows of the global batch, q width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkernel.losses.cross_correlation import correlation_terms
from mmkernel.losses.variance_covariance import moment_terms

_FIX = 'Raise train_dataloader.batch_size.'


def variance_hinge(Z: Tensor, target_std: float = 1.0, eps: float = 1e-4) -> Tensor:
    """(1/q) sum_j max(0, target_std - sqrt(var_j + eps)), var with divisor N - 1.

    Bardes et al., VICReg, ICLR 2022. ``Z``: (B, q). Zero once every dimension has the target deviation. Raises for N < 2.
    """
    return moment_terms(_one_view(Z), [], target_std, eps, covariance='none')[1]


def covariance(Z: Tensor) -> Tensor:
    """C = (Z - mean)'(Z - mean) / (N - 1): (N, q) -> (q, q). Raises for N < 2."""
    check_rows(Z)
    centred = Z - Z.mean(dim=0)
    return centred.T @ centred / (Z.shape[0] - 1)


def covariance_penalty(Z: Tensor) -> Tensor:
    """(1/q) sum_{i != j} C_ij^2 of the covariance with divisor N - 1.

    Bardes et al., ICLR 2022. ``Z``: (B, q). Costs min(N q^2, N^2 q).
    """
    return moment_terms(_one_view(Z), [])[2]


def standardize(Z: Tensor, eps: float = 1e-5) -> Tensor:
    """(Z - mean) / sqrt(var + eps) per column, var with divisor N, as batch normalisation has it. (N, q) -> (N, q)."""
    check_rows(Z)
    variance, mean = torch.var_mean(Z, dim=0, correction=0)
    return (Z - mean) * (variance + eps).rsqrt()


def cross_correlation(X: Tensor, Y: Tensor, eps: float = 1e-5) -> Tensor:
    """C = x'y / N of the two standardised views: (N, q), (N, q) -> (q, q), entries in [-1, 1].

    Zbontar et al., Barlow Twins, ICML 2021. Costs N q^2.
    """
    return standardize(X, eps).T @ standardize(Y, eps) / X.shape[0]


def cross_correlation_terms(X: Tensor, Y: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """sum_i (C_ii - 1)^2 and sum_{i != j} C_ij^2 of ``cross_correlation``: invariance and redundancy.

    ``X``, ``Y``: (B, q). Costs min(N q^2, N^2 q).
    """
    return correlation_terms(_one_view(X), _one_view(Y), [(0, 0)], eps)


def check_rows(Z: Tensor, least: int = 2) -> None:
    _one_view(Z)
    if Z.shape[0] < least:
        raise ValueError(f'A batch of {Z.shape[0]} image has no variance; at least {least} are needed. {_FIX}')


def _one_view(Z: Tensor) -> Tensor:
    if Z.ndim != 2:
        raise ValueError(f'Expected embeddings of shape (N, q), got {tuple(Z.shape)}. One view at a time.')
    return Z[None]
