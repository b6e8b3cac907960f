"""Collectives for losses, with exact gradients. The only file that calls torch.distributed for a loss.

The rule everywhere: each rank returns the loss of the global batch of N = B * W rows, and its gradient with respect to its
own rows is such that the *mean over ranks*, which DistributedDataParallel takes, is the gradient on the union batch.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

_gloo: weakref.ref | None = None  # beside NCCL, once it is made
_rows_are_equal = False
ALL_GATHER = 'all_gather_' + ('single' if hasattr(dist, 'all_gather_single') else 'into_tensor')  # its old name warns


def world_size() -> int:
    """W; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """0 <= rank < W; 0 outside a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def on_first_process(function: Callable[[], Any]) -> Any:
    """What ``function()`` gives in process 0, in every process. Where it raises, every process raises, so that none waits;
    ``error.of_first_process`` is set in the others, where the error need not be told again."""
    if world_size() == 1:
        return function()
    found: list[Any] = [None, None]
    if rank() == 0:
        try:
            found[0] = function()
        except Exception as error:
            found[1] = error
    dist.broadcast_object_list(found)
    if found[1] is not None:
        found[1].of_first_process = rank() != 0
        raise found[1]
    return found[0]


@torch.no_grad()
def gather_rows(x: Tensor, checked: bool = False) -> Tensor:
    """(B, ...) on each rank -> (W B, ...) in rank order, without a graph. Raises where the ranks' B differ, unless ``checked``."""
    if not checked:
        check_equal_rows(x.shape[0])
    if world_size() == 1:
        return x.detach()
    x = x.detach().contiguous()
    gathered = x.new_empty((world_size() * x.shape[0], *x.shape[1:]))
    getattr(dist, ALL_GATHER)(_bytes(gathered), _bytes(x))
    return gathered


@torch.no_grad()
def rows_to_columns(x: Tensor) -> Tensor:
    """(..., B, q) on each rank -> (..., W B, ceil(q / W)): all rows in rank order, this rank's columns, zeros past q.

    No graph. Raises where the ranks' B differ.
    """
    W = world_size()
    if W == 1:
        return x.detach()
    check_equal_rows(x.shape[-2])
    missing = -x.shape[-1] % W
    x = F.pad(x.detach(), (0, missing)) if missing else x.detach()
    return exchange(torch.stack(x.chunk(W, -1))).movedim(0, -3).flatten(-3, -2)


@torch.no_grad()
def columns_to_rows(shard: Tensor, q: int) -> Tensor:
    """The inverse of ``rows_to_columns``: (..., W B, ceil(q / W)) on each rank -> (..., B, q). No graph."""
    if world_size() == 1:
        return shard.detach()
    parts = shard.unflatten(-2, (world_size(), -1)).movedim(-3, 0)  # (W, ..., B, c): rank w's rows, this rank's columns
    return exchange(parts).movedim(0, -2).flatten(-2)[..., :q]


def exchange(parts: Tensor) -> Tensor:
    """(W, ...): part w goes to rank w, and what rank w sent here takes its place."""
    parts = parts.contiguous()
    received = torch.empty_like(parts)
    dist.all_to_all_single(_bytes(received), _bytes(parts))
    return received


def _bytes(x: Tensor) -> Tensor:
    """Half precision as bytes, which every backend can move."""
    return x.view(torch.uint8) if x.dtype in (torch.float16, torch.bfloat16) else x


def check_equal_rows(B: int) -> None:
    """Raise on every rank alike if the ranks' B differ, where a plain gather would hang or mix up rows. See ``equal_rows``."""
    if world_size() == 1 or _rows_are_equal:
        return
    ((least, most),) = bounds_over_ranks(B)
    if most != least:
        raise ValueError(
            f'Local batches differ between ranks: from {least} to {most} rows. Losses over the global batch need equal ones: '
            'set drop_last=True in train_dataloader.'
        )


@contextmanager
def equal_rows() -> Iterator[None]:
    """A promise of whoever loads the batches: inside, the ranks' batches have equally many rows. No gather asks again."""
    global _rows_are_equal
    before, _rows_are_equal = _rows_are_equal, True
    try:
        yield
    finally:
        _rows_are_equal = before


def bounds_over_ranks(*numbers: int) -> list[tuple[int, int]]:
    """(least, most) over ranks of each number. Hosts ask each other; the device, which is behind them, is not waited for."""
    found = torch.tensor([*numbers, *(-n for n in numbers)])
    dist.all_reduce(found, op=dist.ReduceOp.MAX, group=_hosts())
    most, least = found.view(2, -1).tolist()
    return [(-a, b) for a, b in zip(least, most, strict=True)]


def _hosts() -> dist.ProcessGroup | None:
    """A group of the same processes that moves CPU tensors: the default one (None), or gloo beside NCCL."""
    global _gloo  # weakly: a group that outlives ``destroy_process_group`` may abort its process at the end
    if 'cpu:' in dist.get_backend_config():
        return None
    if (group := _gloo and _gloo()) is None:
        group = dist.new_group(backend='gloo')
        _gloo = weakref.ref(group)
    return group


@torch.no_grad()
def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of ``x`` over ranks, without a graph."""
    return sum_over_ranks_(x.detach().clone())


@torch.no_grad()
def sum_over_ranks_(x: Tensor) -> Tensor:
    """``sum_over_ranks`` in place, without a copy; ``x`` is contiguous. Half precision is not summed here."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


@torch.no_grad()
def mean_over_ranks_(x: Tensor) -> Tensor:
    """The mean of ``x`` over ranks, in place as ``sum_over_ranks_``."""
    return x if world_size() == 1 else sum_over_ranks_(x).div_(world_size())


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
        # as a reduce-scatter, on every backend: parts travel as they are, and torch sums half precision in float32
        return exchange(upstream.unflatten(0, (world_size(), -1))).sum(0)


def gather_rows_with_gradient(x: Tensor) -> Tensor:
    """``gather_rows`` whose backward sums the ranks' gradients of this rank's rows. Exact after DDP's mean both where every
    rank forms the same full loss and where each forms the mean over its own rows."""
    return x if world_size() == 1 else _GatherRows.apply(x)


def mean_over_ranks_with_gradient(x: Tensor) -> Tensor:
    """The mean of ``x`` over ranks, which autograd sees. Exact where every rank forms the same loss."""
    if world_size() == 1:
        return x
    from torch.distributed.nn.functional import all_reduce  # torch.distributed may be absent

    return all_reduce(x) / world_size()


def global_mean(local: Tensor) -> Tensor:
    """l_r -> the mean of l over ranks, with the gradient of l_r: exact once DDP has averaged the gradients."""
    return local if world_size() == 1 else local + (sum_over_ranks(local) / world_size() - local.detach())
