"""The shape of an embedding cloud, without labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.evaluation.inputs import as_features


def covariance_spectrum(z: Tensor, normalize: bool = True) -> Tensor:
    """Eigenvalues of Cov(z / ||z||), largest first, float64, (q,).

    Uniform on the sphere, all q are 1/q; a collapsed dimension is a 0. ``z``: (N, q) raw embeddings; the divisor is N.
    The cheaper of the q x q covariance and the N x N Gram matrix is decomposed: they share the non-zero eigenvalues.
    """
    z = as_features(z, 'embeddings').double()
    z = F.normalize(z, dim=1) if normalize else z
    z = z - z.mean(0)
    small = z.T @ z if z.shape[0] >= z.shape[1] else z @ z.T
    values = torch.linalg.eigvalsh(small / len(z)).flip(0).clamp_min(0)
    return F.pad(values, (0, z.shape[1] - len(values)))


def effective_rank(spectrum: Tensor) -> float:
    """exp(-sum_i p_i log p_i), p = spectrum / sum: how many dimensions are in use (Roy & Vetterli, 2007)."""
    p = spectrum / spectrum.sum().clamp_min(1e-300)
    return float(torch.exp(torch.special.entr(p).sum()))
