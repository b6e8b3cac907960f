"""One optimizer step on a batch that does not fit: the exact gradient of a loss that couples all its rows.

An objective L(z_1 .. z_N) sees the images only through their embeddings, so dL/dtheta = sum_n (dz_n / dtheta)' dL/dz_n.
First pass: embed micro-batch by micro-batch without graph, and keep N x q numbers per view. Then one forward and backward
of the head gives g_n = dL/dz_n (and the gradients of the head's own parameters). Second pass: embed each micro-batch again,
with graph, and back-propagate its g_n. Gao et al., Scaling deep contrastive learning batch size under memory limited setup,
RepL4NLP 2021.

The result is that of one big batch, to rounding, where rows do not meet inside the encoder. Batch norm in train mode takes
its statistics from each micro-batch (of each process, or of all with SyncBN), exactly as it does with accumulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmkernel.engine.hooks import unwrap
from mmkernel.engine.launch import random_state, set_random_state
from mmkernel.engine.snapshot import Snapshot
from mmkernel.models import Embeddings

FIELDS = ('online', 'predicted', 'target')


def virtual_step(model: nn.Module, batches: Sequence[dict], wrapper: Any) -> dict[str, Tensor]:
    """What ``model.train_step(batch, wrapper)`` does, for the union of the ``batches``. Returns what is logged.

    ``model``: a JointEmbedding, perhaps inside DistributedDataParallel; ``wrapper``: a PretrainOptimWrapper.
    """
    net = unwrap(model)
    union, states = _embed(model, batches, wrapper)
    leaves = _leaves(union, getattr(net.target, 'gradient', True))
    with wrapper.optim_context(model):
        losses = net.score(union)
    loss, log_vars = net.parse_losses(losses)
    after_head = random_state()
    wrapper.update_params(loss, backward=partial(_pull_back, model, batches, wrapper, leaves, states))
    set_random_state(after_head)  # the second pass replayed the draws of the first
    return log_vars


def _embed(model: nn.Module, batches: Sequence[dict], wrapper: Any) -> tuple[Embeddings, list[dict]]:
    """First pass: the Embeddings of all rows, without graph, and the random state before each micro-batch."""
    net, states, union, start = unwrap(model), [], None, 0
    # autocast keeps half-precision copies of the weights to its end, here without a graph: the second pass has its own
    with wrapper.optim_context(model), torch.no_grad(), _kept_buffers(*_passed_twice(net)):
        for batch in batches:
            states.append(random_state())
            data = net.data_preprocessor(batch, True)
            piece = net.embeddings(data['inputs'], data['sample_index'])
            union = _room(piece, len(batches)) if union is None else union
            rows = slice(start, start + len(piece.sample_index))
            for name in FIELDS:
                getattr(union, name)[:, rows] = getattr(piece, name)
            union.sample_index[rows] = piece.sample_index
            start = rows.stop
    return union, states


def _room(piece: Embeddings, count: int) -> Embeddings:
    """Empty Embeddings for ``count`` micro-batches like ``piece``; what is one tensor there is one here."""
    rooms: dict[int, Tensor] = {}
    for x in (piece.online, piece.predicted, piece.target):
        V, B, q = x.shape
        rooms.setdefault(id(x), x.new_empty(V, count * B, q))
    index = piece.sample_index.new_empty(count * len(piece.sample_index))
    return replace(piece, **{name: rooms[id(getattr(piece, name))] for name in FIELDS}, sample_index=index)


def _leaves(union: Embeddings, target_has_gradient: bool) -> dict[str, Tensor]:
    """The different tensors of ``union`` at which a gradient is taken, by name."""
    leaves: dict[str, Tensor] = {}
    for name in FIELDS:
        x = getattr(union, name)
        if all(x is not other for other in leaves.values()) and (name != 'target' or target_has_gradient):
            leaves[name] = x.requires_grad_()
    return leaves


def _pull_back(
    model: nn.Module,
    batches: Sequence[dict],
    wrapper: Any,
    leaves: dict[str, Tensor],
    states: list[dict],
    loss: Tensor,
    gradient: Tensor,
) -> None:
    """Second pass: the gradients of ``loss`` at the embeddings, through each micro-batch in turn, into the parameters.

    ``gradient``: what enters at the loss. Only the last micro-batch goes through DistributedDataParallel, which then
    exchanges the sums of all.
    """
    net = unwrap(model)
    parameters = {f'head.{name}': p for name, p in net.head.named_parameters() if p.requires_grad}
    sources = {**leaves, **parameters}
    gradients = torch.autograd.grad(loss, list(sources.values()), gradient, allow_unused=True)
    found = {name: g for name, g in zip(sources, gradients, strict=True) if g is not None}
    start = 0
    for j, (batch, state) in enumerate(zip(batches, states, strict=True)):
        last = j == len(batches) - 1
        set_random_state(state)
        names = [name for name in found if name in leaves or last]
        with wrapper.optim_context(model):
            data = net.data_preprocessor(batch, True)
            roots = (model if last else net)(inputs=data['inputs'], mode='roots', names=names)
        rows = slice(start, start + len(data['sample_index']))
        entering = [found[name][:, rows] if name in leaves else found[name] for name in names]
        used = [(roots[name], g) for name, g in zip(names, entering, strict=True) if roots[name].requires_grad]
        torch.autograd.backward([root for root, _ in used], [g for _, g in used])
        start = rows.stop


def _passed_twice(net: nn.Module) -> list[nn.Module]:
    """The parts that both passes run."""
    parts = [net.backbone, net.neck, net.predictor, net.target if getattr(net.target, 'gradient', True) else None]
    return [part for part in parts if part is not None]


@contextmanager
def _kept_buffers(*modules: nn.Module) -> Iterator[None]:
    """Buffers (running statistics) and counters leave as they came: the second pass moves them."""
    parts = [part for module in modules for part in module.modules()]
    before = Snapshot(parts)
    counted = [(part, name, getattr(part, name)) for part in parts for name in getattr(part, 'counters', ())]
    yield
    before.put_back()
    for part, name, value in counted:
        setattr(part, name, value)
