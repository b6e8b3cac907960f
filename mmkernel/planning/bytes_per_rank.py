"""Bytes on the device of one of W ranks: of parameters, and an estimate of the rest where a step cannot be counted."""

from typing import Any

from rich.filesize import pick_unit_and_suffix
from torch import nn
from torch.nn.parameter import is_lazy

from mmkernel.distributed.shards import own_part, share_of
from mmkernel.models.sharded import shards_of

UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']


def held_by_a_rank(model: nn.Module, W: int, fsdp: bool = False) -> tuple[int, int, int | None]:
    """Parameters that rank 0 of W holds, those of them that are trained, and the width d of the rows that it gathers for a
    sharded layer, or None.

    ``model`` is built for one process. ``fsdp``: of each parameter of an encoder a rank holds ceil(rows / W) rows. ValueError
    where a layer is too narrow for W ranks.
    """
    sizes, held, trained, hidden = dict(shards_of(model)), 0, 0, None
    parts = ('backbone.', 'target.backbone.') if fsdp else ()
    for name, p in model.named_parameters():
        count = 0 if is_lazy(p) else p.numel()
        if q := sizes.get(name):
            share = share_of(q, 0, W)
            hidden = max(hidden or 0, count // q)
            count = count // q * (share.stop - share.start)
        elif name.startswith(parts) and count and p.ndim:
            count = -(-len(p) // W) * (count // len(p))
        held, trained = held + count, trained + count * p.requires_grad
    return held, trained, hidden if W > 1 else None


def bytes_per_rank(
    held: int, trained: int, states: int, V: int, B: int, N: int, q: int, hidden: int | None
) -> dict[str, int]:
    """In float32, without activations of the backbone. ``trained``: of the ``held`` parameters; ``states``: tensors of a
    parameter's size that the optimizer keeps."""
    numbers = dict(weights=held, gradients=trained, optimizer=trained * states)
    if hidden is None:
        numbers |= {
            f'embeddings, V x B x q = {V} x {B} x {q}': V * B * q,
            f'gathered embeddings of one view, N x q = {N} x {q}': N * q,
        }
    else:
        own = -(-q * B // N)
        numbers |= {
            f'gathered rows before the sharded layer, V x N x d = {V} x {N} x {hidden}': V * N * hidden,
            f'columns of embeddings, V x N x q/W = {V} x {N} x {own}': V * N * own,
        }
    return {name: 4 * count for name, count in {**numbers, f'Gram matrix of one view, N x N = {N} x {N}': N**2}.items()}


def size(tensors: Any) -> int:
    """Bytes on this rank."""
    return sum(own_part(x).nbytes for x in tensors)


def readable(size: int) -> str:
    """Bytes with a binary unit."""
    unit, suffix = pick_unit_and_suffix(size, UNITS, 1024)
    return f'{size / unit:.{0 if unit == 1 else 1}f} {suffix}'
