"""Covariances remembered from batch to batch: the quadratic contrast against them, and their log determinant.

State is an argument and comes back; nothing is changed inside. Past batches have no gradient. ``momentum`` is the
fraction kept.

Shapes: V views, B local rows, N = B W rows of all ranks, q width. Gradients as ``mmkernel.distributed`` rules.
"""

import torch
from torch import Tensor

from mmkernel.checks import check_views
from mmkernel.distributed import (
    check_equal_rows,
    global_mean,
    mean_over_ranks_,
    mean_over_ranks_with_gradient,
    world_size,
)
from mmkernel.losses.covariance import centred
from mmkernel.losses.matrices import cholesky
from mmkernel.losses.precision import full_precision


@full_precision
@torch.no_grad()
def second_moment(u: Tensor, centered: bool = False) -> Tensor:
    """mean_v mean_n u_vn u_vn', or the covariance (divisor V N - 1) of all rows together: (V, B, q) -> (q, q).

    Of the rows of all ranks, without a graph. A covariance needs two rows, or ValueError.
    """
    rows = u.detach().flatten(0, 1)
    if centered:
        rows = centred(rows[None])[0]
    check_equal_rows(len(rows))
    count = len(rows) * world_size()
    return mean_over_ranks_(rows.T @ rows / len(rows)) * (count / (count - 1) if centered else 1)


@full_precision
def memory_energy(u: Tensor, memory: Tensor) -> Tensor:
    """mean_v mean_n u_vn' C u_vn of a second moment C = ``memory`` (q, q) without gradient: (V, B, q) -> ().

    Zhu et al., TiCo: transformation invariance and covariance contrast, 2022. With C a running mean of
    ``second_moment`` it is the quadratic kernel (u.v)^2 against all past batches, discounted.
    """
    check_views(u)
    return global_mean(((u @ memory.detach()) * u).sum(-1).mean())


@full_precision
def log_determinants(
    z: Tensor,
    covariances: Tensor,
    means: Tensor,
    momentum: float = 0.01,
    mean_momentum: float = 0.01,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor, Tensor]:
    """-(1/q) sum_v log det(R_v + eps I),  R_v <- k R_v + (1-k) mean_n (z_vn - m_v)(z_vn - m_v)'.

    Ozsoy et al., Self-supervised learning with an information maximization criterion, NeurIPS 2022. The smoothed mean
    m_v <- k' m_v + (1-k') mean_n z_vn is used at once, and has its gradient. k = ``momentum``, k' = ``mean_momentum``.
    Computed in float64.

    Args:
        z: (V, B, q) raw rows, equal B on every rank.
        covariances: R, (V, q, q); ``means``: m, (V, q).

    Returns:
        the loss, and the new R and m without a graph.
    """
    check_equal_rows(z.shape[1])
    x, R, m = z.double(), covariances.double(), means.double()
    m = mean_momentum * m + (1 - mean_momentum) * mean_over_ranks_with_gradient(x.mean(1))
    x = x - m[:, None]
    R = momentum * R + (1 - momentum) * mean_over_ranks_with_gradient(x.mT @ x / x.shape[1])
    L = cholesky(R + eps * torch.eye(z.shape[2], dtype=R.dtype, device=R.device))
    loss = L.diagonal(dim1=-2, dim2=-1).log().sum() * (-2 / z.shape[2])
    return loss.to(z.dtype), R.detach(), m.detach()
