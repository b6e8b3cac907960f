"""Contrastive losses (InfoNCE): -log of the softmax probability of the positive among candidates.

Shapes: V online views, G target views, B local rows, N rows of all ranks, q width, K queue rows. Rows are raw: they are
normalised here. Values are those of the global batch; gradients as ``mmkernel.distributed`` rules.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import gather_rows, gather_rows_with_gradient, global_mean, rank, world_size
from mmkernel.kernels.engine import Engine, Pairs, fused_whole, itself, pairwise
from mmkernel.kernels.sphere import to_sphere, unit_rows
from mmkernel.losses.alignment import compared_pairs
from mmkernel.losses.precision import full_precision


@full_precision
def nt_xent(z: Tensor, temperature: float, pairs: Pairs | None = None, **options: Any) -> Tensor:
    """mean_(i,j) mean_n [ logsumexp_{c != (i,n)} z_in.z_c / T - z_in.z_jn / T ], c over the V N rows of all views and ranks.

    Chen et al., ICML 2020; with more than two views the mean runs over the positives of each anchor.

    Args:
        z: (V, B, q).
        temperature: T > 0.
        pairs: (anchor view, positive view); None: all ordered pairs.
        options: those of ``mmkernel.kernels.engine.Engine``.
    """
    (V, B, _), W = z.shape, world_size()
    if V * B * W < 3:
        raise ValueError(
            f'{V} view(s) of {B * W} image(s) leave an anchor without a negative; at least 2 images are needed. '
            'Raise train_dataloader.batch_size.'
        )
    pairs = compared_pairs(z, z, pairs, ordered=True)
    engine = Engine(**options)
    constants = (temperature, *_positives(tuple(pairs), V, B, W, temperature, z.dtype, z.device))
    return fused_whole(_nt_xent, z, constants, engine)


def _nt_xent(z: Tensor, constants: tuple, engine: Engine) -> Tensor:
    u = to_sphere(z, ())[0].flatten(0, 1)[None]
    return pairwise(u, _softmax, constants, _normalisers, engine, scale=1 / (z.shape[1] * world_size())).squeeze(0)


@lru_cache(maxsize=8)
def _positives(
    pairs: tuple, V: int, B: int, W: int, temperature: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """Of each of the W V B rows: its weight w as an anchor, log(w / 2T), the rows of the same image, their shares of -t_ab / T.

    Rows lie rank by rank, view by view. The shares are symmetric, as t_ab is.
    """
    share = torch.zeros(V, V, dtype=torch.float64)
    for i, j in pairs:
        share[i, j] += 1 / len(pairs)
    a = torch.arange(W * V * B)
    view = a // B % V
    other = (view[:, None] + torch.arange(1, V)) % V  # (W V B, V - 1)
    partners = a[:, None] + (other - view[:, None]) * B
    shares = -(share + share.T)[view[:, None], other] / (2 * temperature)
    weights = share.sum(1)[view]
    found = weights, (weights / (2 * temperature)).log(), partners, shares
    return tuple(x.to(device, dtype if x.is_floating_point() else None, non_blocking=True) for x in found)


def _normalisers(G: Tensor, first: int, columns: Tensor, temperature: float, *_: Tensor) -> Tensor:
    """log sum_{b != a} exp(t_ab / T): (1, b, N) -> (1, b)."""
    logits = (G / temperature).masked_fill(itself(first, G.shape[1], columns), -torch.inf)
    most = logits.amax(-1, keepdim=True)
    return (logits - most).exp().sum(-1).log() + most.squeeze(-1)  # half the launches of logsumexp


def _softmax(
    G: Tensor,
    first: int,
    columns: Tensor,
    temperature: float,
    weights: Tensor,
    log_weights: Tensor,
    partners: Tensor,
    shares: Tensor,
    lse: Tensor,
    every_lse: Tensor,
) -> tuple[Tensor, Tensor, None]:
    """w_a lse_a - sum of the positives' t_ab / T; slopes (w_a e^{l_ab - lse_a} + w_b e^{l_ab - lse_b}) / 2T less the shares."""
    rows = slice(first, first + G.shape[1])
    logits = (G / temperature).masked_fill(itself(first, G.shape[1], columns), -torch.inf)
    c, every_c = log_weights[rows] - lse, log_weights - every_lse  # (1, b), (1, N)
    slope = (logits + torch.logaddexp(c[..., None], every_c[:, None])).exp()
    partners, shares = partners[None, rows], shares[None, rows]  # (1, b, V - 1)
    values = weights[rows] * lse + (G.gather(-1, partners) * shares).sum(-1)
    return values, slope.scatter_add(-1, partners, shares), None


@full_precision
def in_batch_info_nce(predicted: Tensor, target: Tensor, temperature: float, pairs: Pairs | None = None) -> Tensor:
    """mean_(i,j) mean_n [ logsumexp_m p_in.t_jm / T - p_in.t_jn / T ], m over the N rows of all ranks.

    van den Oord et al., 2018; Chen, Xie & He, ICCV 2021. ``predicted``: (V, B, q), ``target``: (G, B, q).
    """
    pairs = compared_pairs(predicted, target, pairs, ordered=True)
    predicted, target = unit_rows(predicted), unit_rows(target)
    gather = gather_rows_with_gradient if target.requires_grad else gather_rows  # keys without a graph cost no backward
    keys = gather(target.transpose(0, 1))  # (N, G, q)
    if len(keys) < 2:
        raise ValueError(
            'A batch of 1 image has no negatives: at least 2 are needed. Raise train_dataloader.batch_size.'
        )
    positive = torch.arange(predicted.shape[1], device=predicted.device) + predicted.shape[1] * rank()
    losses = [F.cross_entropy(predicted[i] @ keys[:, j].T / temperature, positive) for i, j in pairs]
    return global_mean(torch.stack(losses).mean())


@full_precision
def queue_info_nce(
    predicted: Tensor, target: Tensor, queue: Tensor, temperature: float, pairs: Pairs | None = None
) -> Tensor:
    """mean_(i,j) mean_n [ log(e^{p_in.t_jn / T} + sum_k e^{p_in.c_jk / T}) - p_in.t_jn / T ], c_j the queue of target view j.

    He et al., CVPR 2020. ``predicted``: (V, B, q), ``target``: (G, B, q), ``queue``: (G, K, q) of unit rows.
    """
    pairs = compared_pairs(predicted, target, pairs, ordered=True)
    predicted, target = unit_rows(predicted), unit_rows(target)
    first, losses = torch.zeros(predicted.shape[1], dtype=torch.long, device=predicted.device), []
    for i, j in pairs:
        positive = (predicted[i] * target[j]).sum(-1, keepdim=True)  # (B, 1)
        logits = torch.cat([positive, predicted[i] @ queue[j].T], dim=1) / temperature  # (B, 1 + K)
        losses.append(F.cross_entropy(logits, first))
    return global_mean(torch.stack(losses).mean())
