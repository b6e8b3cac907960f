"""Contrastive predictive coding: InfoNCE over the positions of a patch grid, in each direction."""

import math
from typing import Any

import torch
from torch import Tensor

from mmkernel.distributed import gather_rows_with_gradient, global_mean, rank
from mmkernel.kernels.layouts import refuse_second_derivative, rows_at_a_time
from mmkernel.losses.precision import full_precision

DIRECTIONS = ('down', 'up', 'right', 'left')


def orient(grid: Tensor, direction: str) -> Tensor:
    """(B, R, C, ...) -> the same, turned so that ``direction`` points to larger rows (columns become rows for right, left)."""
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


@full_precision
def prediction_loss(predictions: list[Tensor], keys: Tensor, positives: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """L = - mean log( exp(p.z+) / sum_z exp(p.z) ), the mean being over all predictions of all ranks.

    van den Oord et al., Representation learning with contrastive predictive coding, 2018. ``predictions``: tensors
    (..., q), one per step; ``keys``: (N, q) candidates; ``positives``: (...,) row of the right one. Returns L, the fraction
    for which the right one scores highest, and the bound log N - L on the mutual information, in nats.
    """
    rows = torch.cat([p.reshape(-1, keys.shape[-1]) for p in predictions])
    positive = torch.cat([index.reshape(-1, 1) for index in positives])
    total, right = _CrossEntropy.apply(rows, keys, positive)
    mean = global_mean(torch.stack([total, right]) / len(rows))
    return mean[0], mean[1].detach(), math.log(len(keys)) - mean[0].detach()


class _CrossEntropy(torch.autograd.Function):
    """sum_i log sum_k exp(p_i.z_k) - p_i.z_{y_i}, and how often y_i is the largest; p (M, q), z (N, q), y (M, 1).

    The logits are made a block of rows at a time and never kept: the gradients, softmax less one-hot times the other rows,
    are made from a block while it is there.
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        at_a_time = rows_at_a_time(len(z), z)
        of_p, of_z = torch.empty_like(p), torch.zeros_like(z)
        total, right = [], []
        for rows, index, gradient in zip(p.split(at_a_time), y.split(at_a_time), of_p.split(at_a_time), strict=True):
            scores = (rows @ z.T).log_softmax(1)  # (rows, N)
            total.append(scores.gather(1, index).sum())
            right.append((scores.argmax(1, keepdim=True) == index).sum())
            if any(ctx.needs_input_grad):
                slope = scores.exp_().scatter_add_(1, index, scores.new_full(index.shape, -1.0))
                torch.mm(slope, z, out=gradient)
                of_z.addmm_(slope.T, rows)
        ctx.save_for_backward(of_p, of_z)
        right = sum(right[1:], right[0]).to(p.dtype)
        ctx.mark_non_differentiable(right)
        return -sum(total[1:], total[0]), right

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        if upstream is None:
            return None, None, None
        of_p, of_z = ctx.saved_tensors
        return of_p * upstream, of_z * upstream, None
