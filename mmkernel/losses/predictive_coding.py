"""Which of all patches comes next in this direction: InfoNCE over the positions of a grid."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import gather_rows_with_gradient, global_mean, rank

DIRECTIONS = ('down', 'up', 'right', 'left')


def orient(grid: Tensor, direction: str) -> Tensor:
    """(B, R, C, ...) -> the same, turned such that ``direction`` points to larger rows (columns become rows for right, left)."""
    if direction in ('right', 'left'):
        grid = grid.transpose(1, 2)
    return grid.flip(1) if direction in ('up', 'left') else grid


def candidates(z: Tensor) -> Tensor:
    """(B, R, C, q) -> (N R C, q): all positions of all images of all ranks, rank-major, with their gradients."""
    return gather_rows_with_gradient(z.reshape(-1, z.shape[-1]))


def own_positions(z: Tensor) -> Tensor:
    """(B, R, C): where each position of this rank stands among ``candidates``."""
    count = math.prod(z.shape[:3])
    return torch.arange(count, device=z.device).view(z.shape[:3]) + rank() * count


def prediction_loss(predictions: list[Tensor], keys: Tensor, positives: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """L = - mean log( exp(p.z+) / sum_z exp(p.z) ), the mean being over all predictions of all ranks.

    van den Oord et al., Representation learning with contrastive predictive coding, 2018. ``predictions``: tensors
    (..., q), one per step; ``keys``: (N, q) candidates; ``positives``: (...,) row of the right one. Returns L, the fraction
    for which the right one scores highest, and the bound log N - L on the mutual information, in nats.
    """
    rows = [p.reshape(-1, keys.shape[-1]) for p in predictions]
    total, right, count = keys.new_zeros(()), keys.new_zeros(()), sum(len(p) for p in rows)
    for p, positive in zip(rows, positives, strict=True):
        scores = p @ keys.T  # one step at a time: (B R C, N) is the largest tensor of the objective
        total = total + F.cross_entropy(scores, positive.flatten(), reduction='sum')
        right = right + (scores.detach().argmax(1) == positive.flatten()).sum()
    loss = global_mean(total / count)
    return loss, global_mean(right / count), math.log(len(keys)) - loss.detach()
