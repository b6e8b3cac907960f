"""Buffers that a forward pass changes, such as running statistics, as they were before it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from mmkernel.models import Head


class Snapshot:
    """The buffers of some modules at one moment: one flat tensor of each dtype, so a few kernels whatever their number.

    A buffer that is another one afterwards, of another shape, is left alone. So is one whose elements share memory, by
    ``expand``: nothing can be written into it.
    """

    @torch.no_grad()
    def __init__(self, modules: Iterable[nn.Module]) -> None:
        kinds: dict[tuple[torch.device, torch.dtype], list[tuple[nn.Module, str, torch.Size]]] = {}
        for part in modules:
            for name, buffer in part._buffers.items():
                if buffer is not None and not is_lazy(buffer) and buffer.numel() and not _is_expanded(buffer):
                    kinds.setdefault((buffer.device, buffer.dtype), []).append((part, name, buffer.shape))
        self.kept = [(where, _flat([part._buffers[name] for part, name, _ in where])) for where in kinds.values()]

    @torch.no_grad()
    def put_back(self, unless: Tensor | None = None) -> None:
        """Into the buffers, where the 0-dim bool ``unless`` is not set. Nothing is read."""
        for where, flat in self.kept:
            pieces = flat.split([shape.numel() for *_, shape in where])
            pairs = [
                (buffer, before.view(shape))
                for (part, name, shape), before in zip(where, pieces, strict=True)
                if _is_like(buffer := part._buffers.get(name), before, shape)
            ]
            now, kept = [buffer for buffer, _ in pairs], [before for _, before in pairs]
            if now and unless is not None:
                before = flat if len(now) == len(where) else _flat(kept)
                chosen = torch.where(unless, _flat(now), before).split([buffer.numel() for buffer in now])
                kept = [piece.view(buffer.shape) for piece, buffer in zip(chosen, now, strict=True)]
            if now:
                torch._foreach_copy_(now, kept)


def moved_by_forward(model: nn.Module) -> list[nn.Module]:
    """The modules with buffers, but for those of a head: ``Head.loss`` is pure. Running statistics move all the same."""
    heads = {part for head in model.modules() if isinstance(head, Head) for part in head.modules()}
    pure = {part for part in heads if not isinstance(part, _NormBase)}
    return [part for part in model.modules() if part._buffers and part not in pure]


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1) for x in tensors])


def _is_expanded(x: Tensor) -> bool:
    return any(n > 1 and stride == 0 for n, stride in zip(x.shape, x.stride(), strict=True))


def _is_like(x: Tensor | None, before: Tensor, shape: torch.Size) -> bool:
    alike = x is not None and (x.shape, x.dtype, x.device) == (shape, before.dtype, before.device)
    return alike and not _is_expanded(x)
