"""-log of the softmax probability of the positive among candidates, as pure functions of embeddings.

Shapes: V online views, G target views, B local rows, N rows of all ranks, q width, K queue rows. Rows are raw: they are
normalised here. Values are those of the global batch; gradients as ``mmkernel.distributed`` rules.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import gather_rows_with_gradient, global_mean, rank, world_size
from mmkernel.losses.pairs import mean_over_pairs

Pairs = list[tuple[int, int]]


def nt_xent(z: Tensor, temperature: float, pairs: Pairs | None = None) -> Tensor:
    """mean_(i,j) mean_n [ logsumexp_{c != (i,n)} z_in.z_c / T - z_in.z_jn / T ], c over the V N rows of all views and ranks.

    Chen et al., ICML 2020; with more than two views the mean runs over the positives of each anchor.

    Args:
        z: (V, B, q).
        temperature: T > 0.
        pairs: (anchor view, positive view); None: all ordered pairs.
    """
    V, B, _ = z.shape
    if V * B * world_size() < 3:
        raise ValueError(
            f'{V} view(s) of {B * world_size()} image(s) leave an anchor without a negative; at least 2 images are needed. '
            'Raise train_dataloader.batch_size.'
        )
    pairs = [(i, j) for i in range(V) for j in range(V) if i != j] if pairs is None else pairs
    z = F.normalize(z, dim=-1)
    everyone = gather_rows_with_gradient(z.transpose(0, 1))  # (N, V, q)
    N = everyone.shape[0]
    logits = torch.einsum('vbq,nwq->vbwn', z, everyone) / temperature  # (V, B, V, N)
    own, column = torch.arange(B, device=z.device), torch.arange(B, device=z.device) + B * rank()
    itself = torch.zeros(B, N, dtype=torch.bool, device=z.device)
    itself[own, column] = True
    itself = torch.eye(V, dtype=torch.bool, device=z.device)[:, None, :, None] & itself[:, None, :]  # (V, B, V, N)
    normaliser = logits.masked_fill(itself, -torch.inf).flatten(2).logsumexp(-1)  # (V, B)
    losses = [(normaliser[i] - logits[i, own, j, column]).mean() for i, j in pairs]
    return global_mean(mean_over_pairs(losses))


def in_batch_info_nce(predicted: Tensor, target: Tensor, temperature: float, pairs: Pairs) -> Tensor:
    """mean_(i,j) mean_n [ logsumexp_m p_in.t_jm / T - p_in.t_jn / T ], m over the N rows of all ranks.

    van den Oord et al., 2018; Chen, Xie & He, ICCV 2021. ``predicted``: (V, B, q), ``target``: (G, B, q).
    """
    predicted, target = F.normalize(predicted, dim=-1), F.normalize(target, dim=-1)
    keys = gather_rows_with_gradient(target.transpose(0, 1))  # (N, G, q)
    if len(keys) < 2:
        raise ValueError(
            'A batch of 1 image has no negatives: at least 2 are needed. Raise train_dataloader.batch_size.'
        )
    positive = torch.arange(predicted.shape[1], device=predicted.device) + predicted.shape[1] * rank()
    losses = [F.cross_entropy(predicted[i] @ keys[:, j].T / temperature, positive) for i, j in pairs]
    return global_mean(mean_over_pairs(losses))


def queue_info_nce(predicted: Tensor, target: Tensor, queue: Tensor, temperature: float, pairs: Pairs) -> Tensor:
    """mean_(i,j) mean_n [ log(e^{p_in.t_jn / T} + sum_k e^{p_in.c_jk / T}) - p_in.t_jn / T ], c_j the queue of target view j.

    He et al., CVPR 2020. ``predicted``: (V, B, q), ``target``: (G, B, q), ``queue``: (G, K, q) of unit rows.
    """
    predicted, target = F.normalize(predicted, dim=-1), F.normalize(target, dim=-1)
    losses = []
    for i, j in pairs:
        positive = (predicted[i] * target[j]).sum(-1, keepdim=True)  # (B, 1)
        logits = torch.cat([positive, predicted[i] @ queue[j].T], dim=1) / temperature  # (B, 1 + K)
        losses.append((logits.logsumexp(1) - logits[:, 0]).mean())
    return global_mean(mean_over_pairs(losses))
