"""One optimizer step on a batch that does not fit, in two passes; and a snapshot of the buffers that a pass moves.

An objective L(z_1 .. z_N) sees the images only through their embeddings, so dL/dtheta = sum_n (dz_n / dtheta)' dL/dz_n.
First pass: embed micro-batch by micro-batch without graph, and keep N x q numbers per view. Then one forward and backward
of the head gives g_n = dL/dz_n (and the gradients of the head's own parameters). Second pass: embed each micro-batch again,
with graph, and back-propagate its g_n. Gao et al., Scaling deep contrastive learning batch size under memory limited setup,
RepL4NLP 2021.

The result is that of one big batch, to rounding, where rows do not meet inside the encoder. Batch norm takes its statistics
from each micro-batch, as it does with accumulation.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from mmkernel.engine.hooks import unwrap
from mmkernel.engine.process_state import random_state, set_random_state
from mmkernel.models import Embeddings, Head

FIELDS = ('online', 'predicted', 'target')


def virtual_step(model: nn.Module, batches: Sequence[dict], wrapper: Any) -> dict[str, Tensor]:
    """What ``model.train_step(batch, wrapper)`` does, for the union of the ``batches``. Returns what is logged."""
    net = unwrap(model)
    union, states = _embed(model, batches, wrapper)
    leaves: dict[str, Tensor] = {}  # the different tensors at which a gradient is taken
    for name in FIELDS if getattr(net.target, 'gradient', True) else FIELDS[:2]:
        x = getattr(union, name)
        if all(x is not other for other in leaves.values()):
            leaves[name] = x.requires_grad_()
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
    # autocast caches half-precision copies of the weights, here without a graph: the second pass needs its own context
    with wrapper.optim_context(model), torch.no_grad(), _kept_buffers(net):
        for batch in batches:
            states.append(random_state())
            data = net.data_preprocessor(batch, True)
            piece = net.embeddings(data['inputs'], data['sample_index'])
            if union is None:  # room for all rows; what is one tensor in a piece is one here
                rooms = {
                    id(x): x.new_empty(len(x), len(batches) * x.shape[1], x.shape[2])
                    for x in (piece.online, piece.predicted, piece.target)
                }
                index = piece.sample_index.new_empty(len(batches) * len(piece.sample_index))
                union = replace(piece, **{name: rooms[id(getattr(piece, name))] for name in FIELDS}, sample_index=index)
            rows = slice(start, start + piece.online.shape[1])  # of columns: those of all ranks
            for name in FIELDS:
                getattr(union, name)[:, rows] = getattr(piece, name)
            images = len(piece.sample_index)
            union.sample_index[len(states) * images - images : len(states) * images] = piece.sample_index
            start = rows.stop
    return union, states


def _pull_back(
    model: nn.Module, batches: Sequence[dict], wrapper: Any, leaves: dict[str, Tensor], states: list[dict],
    loss: Tensor, gradient: Tensor,
) -> None:  # fmt: skip
    """Second pass: the gradients of ``loss`` at the embeddings, through each micro-batch in turn, into the parameters.

    ``gradient``: what enters at the loss. Only the last micro-batch goes through DistributedDataParallel, which then
    exchanges the sums of all.
    """
    net = unwrap(model)
    parameters = {f'head.{name}': p for name, p in net.head.named_parameters() if p.requires_grad}
    sources = {**leaves, **parameters}
    gradients = torch.autograd.grad(loss, list(sources.values()), gradient, allow_unused=True)
    found = {name: g for name, g in zip(sources, gradients, strict=True) if g is not None}
    count = next(iter(leaves.values())).shape[1] // len(batches)
    for j, (batch, state) in enumerate(zip(batches, states, strict=True)):
        last = j == len(batches) - 1
        set_random_state(state)
        names = [name for name in found if name in leaves or last]
        with wrapper.optim_context(model):
            data = net.data_preprocessor(batch, True)
            roots = (model if last else net)(inputs=data['inputs'], mode='roots', names=names)
        rows = slice(j * count, (j + 1) * count)
        entering = [found[name][:, rows] if name in leaves else found[name] for name in names]
        used = [(roots[name], g) for name, g in zip(names, entering, strict=True) if roots[name].requires_grad]
        torch.autograd.backward([root for root, _ in used], [g for _, g in used])


@contextmanager
def _kept_buffers(net: nn.Module) -> Iterator[None]:
    """Restore buffers (running statistics) and counters after the first pass: the second pass moves them."""
    target = net.target if getattr(net.target, 'gradient', True) else None
    modules = [part for part in (net.backbone, net.neck, net.predictor, target) if part is not None]
    parts = [part for module in modules for part in module.modules()]
    before = Snapshot(parts)
    counted = [(part, name, getattr(part, name)) for part in parts for name in getattr(part, 'counters', ())]
    yield
    before.put_back()
    for part, name, value in counted:
        setattr(part, name, value)


class Snapshot:
    """A copy of the buffers of some modules, as one flat tensor for each dtype: a few kernels, however many buffers."""

    @torch.no_grad()
    def __init__(self, modules: Iterable[nn.Module]) -> None:
        kinds: dict[tuple, list[tuple[nn.Module, str, torch.Size]]] = {}
        for part in modules:
            for name, buffer in part._buffers.items():
                if _can_be_kept(buffer):
                    kinds.setdefault((buffer.device, buffer.dtype), []).append((part, name, buffer.shape))
        self.kept = [(where, _flat([part._buffers[name] for part, name, _ in where])) for where in kinds.values()]

    @torch.no_grad()
    def put_back(self, unless: Tensor | None = None) -> None:
        """Write the copy into the buffers if the 0-dim bool ``unless`` is not set. The host reads nothing."""
        for where, flat in self.kept:
            now, before = [], []
            for (part, name, shape), old in zip(where, flat.split([shape.numel() for *_, shape in where]), strict=True):
                x = part._buffers.get(name)
                if _can_be_kept(x) and (x.shape, x.dtype, x.device) == (shape, flat.dtype, flat.device):
                    now.append(x)
                    before.append(old.view(shape))
            if now and unless is not None:
                old = flat if len(now) == len(where) else _flat(before)
                chosen = torch.where(unless, _flat(now), old).split([x.numel() for x in now])
                before = [piece.view(x.shape) for piece, x in zip(chosen, now, strict=True)]
            if now:
                torch._foreach_copy_(now, before)


def moved_by_forward(model: nn.Module) -> list[nn.Module]:
    """The modules with buffers that a forward pass may change: of a head, whose ``loss`` is pure, the batch norms only."""
    heads = {part for head in model.modules() if isinstance(head, Head) for part in head.modules()}
    return [part for part in model.modules() if part._buffers and (part not in heads or isinstance(part, _NormBase))]


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1) for x in tensors])


def _can_be_kept(x: Tensor | None) -> bool:
    if x is None or is_lazy(x) or not x.numel():
        return False
    return not any(n > 1 and stride == 0 for n, stride in zip(x.shape, x.stride(), strict=True))
