"""Columns of all rows: a layer of q features of which each of W ranks holds q/W, and what its objective needs of the others.

Rank r has hidden rows h_r (B, d) of its own images. All N = W B of them come to every rank, H (N, d), since d is far smaller
than q, and rank w makes its columns of the embeddings, Z_w = H W_w' (N, q/W), with its rows W_w of the weight (q, d):

    ||z_n||^2 = sum_w ||z_nw||^2     Z Z' = sum_w Z_w Z_w'     moments of a feature: known where the feature is

so an objective costs sums over ranks of N numbers or of N x N, and no rank ever holds N x q. Its gradient at Z_w is local, and
is that of the loss *itself*, over the global batch. So is dL/dW_w = dL/dZ_w' H: it is complete, and nothing averages it
(these parameters, ``Shard``, are outside of DistributedDataParallel). For what every rank computes alike, dL/dH is a sum of
parts, dL/dZ_w W_w of rank w. To follow the rule of this package, that the *mean* over ranks is the gradient, parts go back
W times as large (``to_shards``): parameters that act on H, such as a batch norm's over the N rows, then have it by the mean that
DistributedDataParallel takes, and the rows h_r by a sum, each on the rank that it came from (``rows_of_all``).

The layer before may be sharded as well: of its H, rank w has columns. All come to every rank (``columns_of_all``), and the sum
of the parts dL/dZ_w W_w goes back to where each column is made: complete there, as dL/dW_w is.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mmkernel.distributed import (
    gather_rows_with_gradient,
    global_mean,
    mean_over_ranks_,
    rank,
    sum_over_ranks,
    world_size,
)


class Shard(nn.Parameter):
    """Rows of a parameter whose other rows are those of other ranks. A copy is one too."""


def is_spread(p: Tensor) -> bool:
    """Whether ``p`` is a DTensor: torch's ``fully_shard`` has left this rank its rows alone, those of ``share_of``."""
    return hasattr(p, 'to_local')  # the class itself is half a second of imports


def own_part(p: Tensor) -> Tensor:
    """This rank's rows of a tensor that is spread, any other tensor itself."""
    return p.detach().to_local() if is_spread(p) else p


def spread_as(own: Tensor, whole: Tensor) -> Tensor:
    """``whole``, which every rank has, in the form of ``own``: of a tensor that is spread, this rank's rows."""
    if not is_spread(own):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def share_of(q: int, of: int | None = None, W: int | None = None, some: bool = True) -> slice:
    """Which of q features are this rank's (or rank ``of``'s of W): ceil(q / W) each, the last rank has what is left.

    ``some``: ValueError where a rank would have none.
    """
    W = world_size() if W is None else W
    size = -(-q // W)
    if some and size * (W - 1) >= q:
        raise ValueError(
            f'{q} features are too few to lie on {W} ranks, {size} on each: the last would have none. Widen the layer, '
            'start fewer processes, or set sharded=False.'
        )
    first = min((rank() if of is None else of) * size, q)
    return slice(first, min(first + size, q))


def rows_of_all(h: Tensor) -> Tensor:
    """(..., B, d) on each rank -> (..., N, d), in rank order. Backward sums the ranks' gradients of this rank's rows."""
    return gather_rows_with_gradient(h.movedim(-2, 0)).movedim(0, -2)


def columns_of_all(h: Tensor, d: int) -> Tensor:
    """This rank's columns (..., N, ceil(d/W)) of d -> (..., N, d). Backward sums the ranks' gradients of this rank's columns."""
    if world_size() == 1:
        return h
    missing = -(-d // world_size()) - h.shape[-1]  # of the last rank
    return gather_rows_with_gradient(F.pad(h, (0, missing)).movedim(-1, 0))[:d].movedim(0, -1)


def to_shards(h: Tensor) -> Tensor:
    """h, whose gradient is W times as large: see above."""
    return h if world_size() == 1 else _ToShards.apply(h)


class _ToShards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return upstream * world_size()


# What an objective asks. ``columns``: q where z (V, N, q/W) holds columns of all rows, None where it is rows (V, B, q).


def all_rows(z: Tensor, columns: int | None) -> int:
    """N."""
    return z.shape[-2] * (world_size() if columns is None else 1)


def part_of_mean(z: Tensor, columns: int | None) -> float:
    """What the mean over the entries of ``z`` counts in ``total`` of the mean over all entries."""
    return 1.0 if columns is None else z.shape[-1] / columns


def total(own: Tensor, columns: int | None) -> Tensor:
    """Of rows: the mean of ``own`` over ranks; of columns: the sum. With the gradient of ``own``."""
    if columns is None or world_size() == 1:
        return global_mean(own)
    return own + (sum_over_ranks(own) - own.detach())


def mean_of_entries(own: Tensor, z: Tensor, columns: int | None) -> Tensor:
    """The mean over this rank's entries of a (..., q) tensor as ``z`` -> over all entries, with the gradient of ``own``."""
    return global_mean(own) if columns is None else total(own * part_of_mean(z, columns), columns)


def mean_over_all_rows_(x: Tensor, columns: int | None) -> Tensor:
    """Means over this rank's rows -> over all, in place. Columns have all rows already."""
    return mean_over_ranks_(x) if columns is None else x


@torch.no_grad()
def whole_on_first(shard: Tensor, q: int) -> Tensor | None:
    """This rank's rows of a tensor of q -> all of it on the CPU of process 0, None elsewhere.

    One part at a time travels: beside the whole on its CPU, the device of process 0 holds one part more.
    """
    if world_size() == 1:
        return shard.detach()
    if rank() > 0:
        _ = shard.numel() and dist.send(shard.detach().contiguous(), 0)
        return None
    whole = torch.empty(q, *shard.shape[1:], dtype=shard.dtype)
    for r in range(world_size()):
        rows = share_of(q, r, some=False)
        part = shard.detach() if r == 0 else shard.new_empty(rows.stop - rows.start, *shard.shape[1:])
        if r > 0 and part.numel():
            dist.recv(part, r)
        whole[rows] = part.to('cpu')
    return whole
