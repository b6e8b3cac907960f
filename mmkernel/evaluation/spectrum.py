"""Eigenvalues of the covariance of embeddings, effective rank, and RankMe."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.evaluation.inputs import as_features, unit_rows

ROUNDING = 1e-13  # a share of the mean square below which a variance is float32's rounding: (3e-7)^2


def on_sphere(z: Tensor) -> Tensor:
    """z / ||z|| of (N, q) rows at any scale. Rows without a direction, zeros, are one point: the first axis."""
    u = unit_rows(z)
    nowhere = (u == 0).all(1)
    if nowhere.any():
        u[nowhere, 0] = 1
    return u


def covariance_spectrum(z: Tensor, normalize: bool = True) -> Tensor:
    """Eigenvalues of Cov(z / ||z||), largest first, float64, (q,).

    Uniform on the sphere, all q are 1/q; a collapsed dimension is a 0, and a cloud that is a point up to rounding has
    zeros only. ``z``: (N, q) raw embeddings; the divisor is N.
    """
    z = as_features(z, 'embeddings').double()
    z = on_sphere(z) if normalize else z
    size = z.square().sum() / len(z)
    z = z - z.mean(0)
    values = _squared_singular_values(z).flip(0) / len(z)
    if values.sum() <= ROUNDING * size:
        values.zero_()  # otherwise noise alone would seem to fill many dimensions
    return F.pad(values, (0, z.shape[1] - len(values)))


def rankme(z: Tensor) -> float:
    """RankMe: exp(-sum_k p_k log p_k), p_k = sigma_k / sum_j sigma_j + 1e-7, sigma_k the singular values of ``z``.

    Garrido et al., ICML 2023, equation 1: of raw (N, q) embeddings, neither centred nor normalised. 1 for a line through
    the origin, at most min(N, q). Singular values, where :func:`effective_rank` of a covariance has their squares: the two
    can order clouds differently. In double.
    """
    z = as_features(z, 'embeddings').double()
    z = z / z.abs().max().clamp_min(1e-300)
    sigma = _squared_singular_values(z).sqrt()
    return _exp_entropy(sigma / sigma.sum().clamp_min(1e-300) + 1e-7)


def effective_rank(spectrum: Tensor) -> float:
    """exp(-sum_i p_i log p_i), p = spectrum / sum: how many dimensions are in use; 1 for a point.

    Of the eigenvalues of a covariance matrix, which are its singular values: the effective rank of that matrix (Roy &
    Vetterli, EUSIPCO 2007). It is not RankMe, see :func:`rankme`.
    """
    return _exp_entropy(spectrum / spectrum.sum().clamp_min(1e-300))


def _squared_singular_values(z: Tensor) -> Tensor:
    """Rising, from the cheaper of the q x q and the N x N Gram matrix: they share the non-zero eigenvalues."""
    return torch.linalg.eigvalsh(z.T @ z if z.shape[0] >= z.shape[1] else z @ z.T).clamp_min(0)


def _exp_entropy(p: Tensor) -> float:
    return float(torch.exp(torch.special.entr(p).sum()))
