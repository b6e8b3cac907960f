"""Estimated bytes on the device of one of W ranks."""

from torch import nn

from mmkernel.distributed.shards import share_of
from mmkernel.models.sharded import shards_of


def held_by_a_rank(model: nn.Module, total: int, W: int) -> tuple[int, int | None]:
    """Parameters that rank 0 of W holds, of ``total``; and the width d of the rows that it gathers for a sharded layer, or None.

    ``model`` is built for one process. ValueError where a layer is too narrow for W ranks.
    """
    parameters, hidden = dict(model.named_parameters()), None
    for name, q in shards_of(model):
        if name in parameters:
            share, rows = share_of(q, 0, W), parameters[name].numel() // q
            total -= (q - (share.stop - share.start)) * rows
            hidden = max(hidden or 0, rows)
    return total, hidden if W > 1 else None


def bytes_per_rank(held: int, states: int, V: int, B: int, N: int, q: int, hidden: int | None) -> dict[str, int]:
    """In float32, without activations of the backbone. ``states``: tensors that the optimizer keeps of a parameter's size."""
    numbers = dict(weights=held, gradients=held, optimizer=held * states)
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
