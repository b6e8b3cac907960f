"""Collectives for losses, with exact gradients. The only file that calls torch.distributed for a loss.

The rule everywhere: each rank returns the loss of the global batch of N = B * W rows, and its gradient with respect to its
own rows is such that the *mean over ranks*, which DistributedDataParallel takes, is the gradient on the union batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """W; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """0 <= rank < W; 0 outside a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@torch.no_grad()
def gather_rows(x: Tensor) -> Tensor:
    """(B, ...) on each rank -> (W B, ...) in rank order, without a graph. Raises where the ranks' B differ."""
    if world_size() == 1:
        return x.detach()
    check_equal_rows(x)
    x = x.detach().contiguous()
    gathered = x.new_empty((world_size() * x.shape[0], *x.shape[1:]))
    dist.all_gather_into_tensor(_bytes(gathered), _bytes(x))
    return gathered


@torch.no_grad()
def rows_to_columns(x: Tensor) -> Tensor:
    """(B, q) on each rank -> (W B, ceil(q / W)): all rows in rank order, this rank's columns, zeros past q. No graph.

    Raises where the ranks' B differ.
    """
    W = world_size()
    if W == 1:
        return x.detach()
    check_equal_rows(x)
    (B, q), c = x.shape, -(-x.shape[1] // W)
    parts = x.new_zeros(W, B, c) if c * W > q else x.new_empty(W, B, c)  # one per destination
    for w in range(W):
        part = x[:, w * c : (w + 1) * c]
        parts[w, :, : part.shape[1]] = part
    return _exchange(parts).view(W * B, c)


@torch.no_grad()
def columns_to_rows(shard: Tensor, q: int) -> Tensor:
    """The inverse of ``rows_to_columns``: (W B, ceil(q / W)) on each rank -> (B, q). No graph."""
    W = world_size()
    if W == 1:
        return shard.detach()
    parts = _exchange(shard.view(W, -1, shard.shape[1]))  # (W, B, c): this rank's rows, the columns of rank w
    return parts.transpose(0, 1).flatten(1)[:, :q]


def _exchange(parts: Tensor) -> Tensor:
    """(W, ...): part w goes to rank w, and what rank w sent here takes its place."""
    received = torch.empty_like(parts, memory_format=torch.contiguous_format)
    dist.all_to_all_single(_bytes(received), _bytes(parts.contiguous()))
    return received


def _bytes(x: Tensor) -> Tensor:
    """Half precision as bytes, which every backend can move."""
    return x.view(torch.uint8) if x.dtype in (torch.float16, torch.bfloat16) else x


@torch.no_grad()
def check_equal_rows(x: Tensor) -> None:
    """Raise on every rank alike if the ranks' first dimensions differ (a plain gather would hang or mix up rows)."""
    bounds = torch.tensor([x.shape[0], -x.shape[0]], device=x.device)
    dist.all_reduce(bounds, op=dist.ReduceOp.MAX)
    most, least = bounds[0].item(), -bounds[1].item()
    if most != least:
        raise ValueError(
            f'Local batches differ between ranks: from {least} to {most} rows. Losses over the global batch need equal ones: '
            'set drop_last=True in train_dataloader.'
        )


@torch.no_grad()
def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of ``x`` over ranks, without a graph."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x)
    return x


@torch.no_grad()
def sum_over_ranks_(x: Tensor) -> Tensor:
    """``sum_over_ranks`` in place, without a copy; ``x`` is contiguous. Half precision is not summed here."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


@torch.no_grad()
def max_over_ranks(x: Tensor) -> Tensor:
    """The elementwise maximum of ``x`` over ranks, without a graph."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x, op=dist.ReduceOp.MAX)
    return x


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return gather_rows(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return sum_over_ranks(upstream.contiguous()).chunk(world_size())[rank()]


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return sum_over_ranks(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return sum_over_ranks(upstream.contiguous())


def gather_rows_with_gradient(x: Tensor) -> Tensor:
    """``gather_rows`` whose backward sums the ranks' gradients of this rank's rows.

    Exact after DDP's mean both where every rank forms the same full loss and where each forms the mean over its own rows.
    """
    return x if world_size() == 1 else _GatherRows.apply(x)


def sum_over_ranks_with_gradient(x: Tensor) -> Tensor:
    """``sum_over_ranks`` that autograd sees: backward sums over ranks too. Exact where every rank forms the same loss."""
    return x if world_size() == 1 else _SumOverRanks.apply(x)


def global_mean(local: Tensor) -> Tensor:
    """l_r -> the mean of l over ranks, with the gradient of l_r: exact once DDP has averaged the gradients."""
    if world_size() == 1:
        return local
    return local + (sum_over_ranks(local) / world_size() - local.detach())
