"""Objectives of the spectrum of embeddings: nuclear norm, Bures-Wasserstein distance, entropy, spectral contrast.

Shapes: V views, B local rows, N = B W rows of all ranks, q width. Gradients as ``mmkernel.distributed`` rules.
"""

from typing import Any

import torch
from torch import Tensor

from mmkernel.checks import check_views
from mmkernel.distributed import (
    check_equal_rows,
    gather_rows,
    gather_rows_with_gradient,
    global_mean,
    mean_over_ranks_with_gradient,
    rank,
    sum_over_ranks_,
    world_size,
)
from mmkernel.kernels.engine import Engine, Pairs, itself, pairwise
from mmkernel.kernels.layouts import refuse_second_derivative
from mmkernel.kernels.legendre import check_dimension
from mmkernel.kernels.sphere import unit_rows
from mmkernel.losses.alignment import compared_pairs, invariance
from mmkernel.losses.covariance import centred, off_diagonal_squares
from mmkernel.losses.matrices import eigh
from mmkernel.losses.precision import full_precision


@full_precision
def nuclear_norm(x: Tensor, everywhere: bool = True) -> Tensor:
    """||X||_* = tr (X'X)^1/2, the sum of the singular values, of the rows of all ranks: (..., B, q) -> (...).

    From the eigenvalues of the smaller Gram matrix, in float64: q x q summed over ranks, or N x N of gathered rows.
    The gradient X (X'X)^-1/2 leaves out directions without variance: no singular value of it is above 1 at any rank.

    ``everywhere=False``: of this rank's rows alone.
    """
    return _NuclearNorm.apply(x, everywhere)


@full_precision
def centroid_norms(z: Tensor, normalize: bool = True, local: bool = True) -> tuple[Tensor, Tensor]:
    """||C||_*, c_i = mean_v z_vi,  and  mean_i ||Z_i||_*, Z_i the V views of image i:  (V, B, q) -> two scalars.

    Yerxa et al., Learning efficient coding of natural images with maximum manifold capacity representations, NeurIPS
    2023, minimise lambda times the second less the first, which is not divided by N. ``normalize``: rows to the sphere
    first. ``local=False``: the second is 0, and costs nothing.
    """
    check_dimension(z.shape[2])
    u = unit_rows(z) if normalize else z
    around = nuclear_norm(u.transpose(0, 1), everywhere=False).mean() if local else u.new_zeros(())
    return nuclear_norm(u.mean(0)), global_mean(around)


@full_precision
def wasserstein_to_uniform(z: Tensor, squared: bool = False) -> Tensor:
    """W_2 = ( ||mu||^2 + 1 + tr S - (2 / sqrt q) tr S^1/2 )^1/2 = ( 2 - (2 / sqrt(n q)) ||Z - mu||_* )^1/2.

    Fang et al., Rethinking the uniformity metric in self-supervised learning, ICLR 2024: the distance of N(mu, S) to
    N(0, I / q), mu and S the moments (divisor n) of all n = V N rows, which are put on the sphere. Under the
    root, 1e-14 is added, so that the optimum has a gradient. ``squared``: W_2^2. (V, B, q) -> ().
    """
    check_views(z)
    V, B, q = z.shape
    check_dimension(q)
    x = centred(unit_rows(z).reshape(1, V * B, q).double())  # of a difference that is small near the optimum
    n = V * B * world_size()
    distance = (2 - 2 / (n * q) ** 0.5 * nuclear_norm(x)[0]).clamp_min(0)
    return (distance if squared else (distance + 1e-14).sqrt()).to(z.dtype)


@full_precision
def log_frobenius_terms(z: Tensor, pairs: Pairs | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """V q sum_v mean (z_v - mean_w z_w)^2  and  sum_v log ||C_v / tr C_v||_F^2,  C = Z'Z:  (V, B, q) -> two scalars.

    Skean et al., FroSSL: Frobenius norm minimization for self-supervised learning, ECCV 2024. The columns of each view
    have length 1 over the rows of all ranks; tr C has no gradient. The second is minus the quadratic Renyi entropy of
    the spectrum.

    ``pairs``: only whether there is one. ``options``: those of ``mmkernel.kernels.engine.Engine``.
    """
    check_equal_rows(z.shape[1])
    V, q, N = len(z), z.shape[2], z.shape[1] * world_size()
    lengths = (mean_over_ranks_with_gradient(z.square().mean(1, keepdim=True)) * N).clamp_min(1e-24).sqrt()
    x = z / lengths
    trace = sum_over_ranks_(x.detach().square().sum((1, 2)))  # (V,)
    narrow = N > q
    energy = pairwise(  # ||x'x||^2 = ||xx'||^2
        x.mT if narrow else x, off_diagonal_squares, (True,), engine=Engine(**options), slope=2, sharded=narrow
    )
    tiny = torch.finfo(x.dtype).tiny
    entropies = energy.clamp_min(tiny).log() - 2 * trace.clamp_min(tiny**0.5).log()
    return V * V * invariance(x, x, pairs, 'mean'), entropies.sum()


@full_precision
def spectral_contrastive(x: Tensor, y: Tensor, mu: float = 1.0, pairs: Pairs | None = None) -> tuple[Tensor, Tensor]:
    """-(2 / mu) mean_n x_in.y_jn  and  (1 / (mu N (N-1))) sum_{n != m} (x_in.y_jm)^2, each the mean over pairs (i, j).

    HaoChen et al., Provable guarantees for self-supervised deep learning with spectral contrastive loss, NeurIPS 2021.
    Rows longer than sqrt(mu) are shortened to it. The second is made of q x q moments, or of the N x N products if
    these are fewer.

    ``x``: (V, B, q), ``y``: (G, B, q) raw rows, equal B on every rank. Returns two scalars.
    """
    pairs = compared_pairs(x, y, pairs)
    u = _shortened(x, mu)
    v = u if x is y else _shortened(y, mu)
    (B, q), N = u.shape[1:], u.shape[1] * world_size()
    if N < 2:
        raise ValueError(
            f'A batch of {N} image has no negatives; at least 2 are needed. Raise train_dataloader.batch_size.'
        )
    check_equal_rows(B)
    positive = torch.stack([(u[i] * v[j]).sum(-1) for i, j in pairs])  # (P, B)
    if q < N:
        S = mean_over_ranks_with_gradient(u.mT @ u / B)  # (V, q, q)
        T = S if v is u else mean_over_ranks_with_gradient(v.mT @ v / B)
        every = torch.stack([(S[i] * T[j]).sum() for i, j in pairs]).mean()  # mean_nm (x_n.y_m)^2
        repulsion = (N * every - global_mean(positive.square().mean())) / (N - 1)
    else:
        keys = gather_rows_with_gradient(v.transpose(0, 1))  # (N, G, q)
        own = itself(rank() * B, B, torch.arange(N, device=u.device))
        others = [(u[i] @ keys[:, j].T).masked_fill(own, 0).square().sum() for i, j in pairs]
        repulsion = global_mean(torch.stack(others).mean() / (B * (N - 1)))
    return -2 / mu * global_mean(positive.mean()), repulsion / mu


def _shortened(x: Tensor, mu: float) -> Tensor:
    longest = mu**0.5
    return x * (longest / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(longest))


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, everywhere: bool) -> Tensor:
        W, y = world_size() if everywhere else 1, x
        (B, q), mine = x.shape[-2:], slice(None)
        if W > 1:
            check_equal_rows(B)
        narrow = q <= B * W
        if W > 1 and not narrow:
            y, mine = gather_rows(y.movedim(-2, 0), checked=True).movedim(0, -2), slice(rank() * B, (rank() + 1) * B)
        y = y.double()
        S = (y.mT @ y).contiguous() if narrow else y @ y.mT
        norm, inverse = _root(sum_over_ranks_(S) if narrow and W > 1 else S)
        ctx.save_for_backward((y @ inverse if narrow else inverse[..., mine, :] @ y).to(x.dtype))
        ctx.ranks = W
        return norm.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        refuse_second_derivative()
        (gradient,) = ctx.saved_tensors
        return gradient * (upstream * ctx.ranks)[..., None, None], None


def _root(S: Tensor) -> tuple[Tensor, Tensor]:
    """tr S^1/2 and S^-1/2 on the directions that have variance, of S >= 0: (..., n, n) -> (...), (..., n, n)."""
    values, U = eigh(S)
    resolution = S.shape[-1] * torch.finfo(S.dtype).eps * values[..., -1:]
    roots = torch.where(values > resolution, values, 0).sqrt()
    inverse = torch.where(roots > 0, 1 / roots, 0)
    norm = torch.where(U[..., 0, 0].isnan(), torch.nan, roots.sum(-1))
    return norm, (U * inverse[..., None, :]) @ U.mT
