"""Whitening: linear maps W with W S W' = I for the covariance S of a batch.

Kessy, Lewin and Strimmer, Optimal whitening and decorrelation, 2018, compare them; Ermolov et al., Whitening for
self-supervised representation learning, ICML 2021, use the inverse of the lower Cholesky factor.

Shapes: n rows, q width; ``...`` any leading axes (views, sub-batches), each whitened by its own statistics.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkernel.losses.spectral import eigenvectors, inverse_square_root

METHODS = ('cholesky', 'cholesky_precision', 'zca', 'pca', 'zca_cor', 'pca_cor')
_JITTERS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


class SingularCovarianceWarning(RuntimeWarning):
    """A covariance was not positive definite in working precision, so a little of the identity was added."""


@dataclass
class Whitened:
    """What ``whiten`` returns."""

    rows: Tensor  # (..., n, q), covariance I (divisor n - 1)
    jitter: Tensor  # (), largest jitter added, as a fraction of the mean variance; 0 normally
    condition: Tensor  # (), largest condition number of the covariances as they came


def whiten(x: Tensor, method: str = 'cholesky', shrinkage: float = 0.0) -> Whitened:
    """z_i = W (x_i - mean),  W from S = (1 - shrinkage) cov + shrinkage I, divisor n - 1; the gradient passes through S.

    ``x``: (..., n, q). Methods: ``whitening_matrix``. Only 'cholesky' and 'cholesky_precision' are triangular solves and
    never form W. A covariance that is singular in working precision gets jitter, with a ``SingularCovarianceWarning``.

    Raises ValueError for n <= q without shrinkage: such a covariance is singular whatever the data.
    """
    n, q = x.shape[-2:]
    _check(n, q, method, shrinkage)
    centred = x - x.mean(dim=-2, keepdim=True)
    S = centred.mT @ centred / (n - 1)
    if shrinkage:
        S = (1 - shrinkage) * S + shrinkage * torch.eye(q, dtype=S.dtype, device=S.device)
    jitter, condition = conditioning(S)
    if bool(jitter.any()):
        warnings.warn(
            f'{int((jitter > 0).sum())} of {jitter.numel()} covariances ({q} x {q}) are singular in {S.dtype}: added up to '
            f'{float(jitter.max()):g} of the mean variance to their diagonal. Usual cause: collapsed dimensions. Raise '
            'sub_batch_size or shrinkage, or lower the learning rate.',
            SingularCovarianceWarning,
            stacklevel=2,
        )
        mean_variance = S.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(S.dtype).tiny)
        S = S + (jitter * mean_variance)[..., None, None] * torch.eye(q, dtype=S.dtype, device=S.device)
    if method == 'cholesky':
        rows = _solve(S, centred)
    elif method == 'cholesky_precision':  # the upper factor of S: that of S in reversed order of dimensions
        rows = _solve(S.flip(-1, -2), centred.flip(-1)).flip(-1)
    else:
        rows = centred @ whitening_matrix(S, method).mT
    return Whitened(rows, jitter.max(), condition.max())


def whitening_matrix(S: Tensor, method: str) -> Tensor:
    """W of each method for covariances S (..., q, q), with W S W' = I.

    S = L L' = U diag(l) U' (l descending, U with a positive diagonal), V = diag(S), P = V^-1/2 S V^-1/2 = G diag(t) G':
    cholesky L^-1; cholesky_precision the transposed lower factor of S^-1; zca S^-1/2; pca diag(l)^-1/2 U';
    zca_cor P^-1/2 V^-1/2; pca_cor diag(t)^-1/2 G' V^-1/2.

    The gradients of zca and zca_cor are smooth also where eigenvalues meet; eigenvectors, hence pca and pca_cor, have no
    derivative there, and close pairs are damped: see ``mmkernel.losses.spectral``.
    """
    if method not in METHODS:
        raise ValueError(f'method is one of {", ".join(METHODS)}; got {method!r}.')
    identity = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device).expand_as(S)
    if method == 'cholesky':
        return torch.linalg.solve_triangular(torch.linalg.cholesky(S), identity, upper=False)
    if method == 'cholesky_precision':
        return whitening_matrix(S.flip(-1, -2), 'cholesky').flip(-1, -2)
    if method.endswith('_cor'):
        scale = S.diagonal(dim1=-2, dim2=-1).rsqrt()  # (..., q)
        P = scale[..., :, None] * S * scale[..., None, :]
        return whitening_matrix(P, method.removesuffix('_cor')) * scale[..., None, :]
    root = inverse_square_root(S)
    return root if method == 'zca' else eigenvectors(S).mT @ root  # diag(l)^-1/2 U' = U' S^-1/2


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


def draw_sub_batches(rows: int, size: int, iterations: int, generator: torch.Generator) -> Tensor:
    """(I, K, s): I random permutations of ``rows`` row indices, each cut into K blocks of s = ``size``."""
    if rows % size:
        raise ValueError(
            f'A batch of {rows} images per process cannot be cut into whitening sub-batches of {size}. '
            'Choose sub_batch_size among the divisors of train_dataloader.batch_size.'
        )
    drawn = [torch.randperm(rows, generator=generator) for _ in range(iterations)]
    return torch.stack(drawn).view(iterations, -1, size)


def sub_batches(x: Tensor, permutation: Tensor) -> Tensor:
    """Rows of V views in the blocks of I permutations, the same for all views.

    ``x``: (V, n, q), ``permutation``: (I, K, s) row indices, K blocks of s rows. Returns (I, V, K, s, q).
    """
    return x[:, permutation].transpose(0, 1)


def whiten_views(x: Tensor, method: str = 'cholesky', shrinkage: float = 0.0, statistics: str = 'view') -> Whitened:
    """Whitened sub-batches: (..., V, K, s, q) -> the same shape.

    ``statistics``: 'view' whitens each view of each sub-batch by itself (official code of Ermolov et al.), 'joint' all
    views of a sub-batch together (their text).
    """
    if statistics not in ('view', 'joint'):
        raise ValueError(
            f"statistics is 'view' (each view by itself) or 'joint' (all views together), got {statistics!r}."
        )
    if statistics == 'view':
        return whiten(x, method, shrinkage)
    V, K, s, q = x.shape[-4:]
    joined = x.transpose(-4, -3).reshape(*x.shape[:-4], K, V * s, q)
    whitened = whiten(joined, method, shrinkage)
    rows = whitened.rows.view(*x.shape[:-4], K, V, s, q).transpose(-4, -3)
    return Whitened(rows, whitened.jitter, whitened.condition)


def _solve(S: Tensor, centred: Tensor) -> Tensor:
    """Rows of (L^-1 centred')', L the lower Cholesky factor of S."""
    return torch.linalg.solve_triangular(torch.linalg.cholesky(S), centred.mT, upper=False).mT


def _check(n: int, q: int, method: str, shrinkage: float) -> None:
    if method not in METHODS:
        raise ValueError(f'method is one of {", ".join(METHODS)}; got {method!r}.')
    if not 0 <= shrinkage <= 1:
        raise ValueError(f'shrinkage mixes covariance (0) and identity (1); got {shrinkage}.')
    if n < 2 or (n <= q and not shrinkage):
        raise ValueError(
            f'Whitening {q} dimensions needs more samples than that, got {n}: the covariance of n rows has rank n - 1. '
            f'Use a (sub-)batch of at least {2 * q}, fewer dimensions (the last of neck.dims), or shrinkage > 0.'
        )
