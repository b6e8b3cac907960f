"""Buffers that a forward pass changes, such as running statistics, as they were before it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Snapshot:
    """The buffers of some modules at one moment: one flat tensor of each dtype, so a few kernels whatever their number."""

    @torch.no_grad()
    def __init__(self, modules: Iterable[nn.Module]) -> None:
        kinds: dict[tuple[torch.device, torch.dtype], list[tuple[nn.Module, str]]] = {}
        for part in modules:
            for name, buffer in part._buffers.items():
                if buffer is not None and buffer.numel():
                    kinds.setdefault((buffer.device, buffer.dtype), []).append((part, name))
        self.kept = [(where, _flat(where)) for where in kinds.values()]

    @torch.no_grad()
    def put_back(self, unless: Tensor | None = None) -> None:
        """Into the buffers, where the 0-dim bool ``unless`` is not set. Nothing is read."""
        for where, before in self.kept:
            kept = before if unless is None else torch.where(unless, _flat(where), before)
            now = _tensors(where)
            pieces = kept.split([buffer.numel() for buffer in now])
            torch._foreach_copy_(now, [piece.view(buffer.shape) for piece, buffer in zip(pieces, now, strict=True)])


def _tensors(where: list[tuple[nn.Module, str]]) -> list[Tensor]:
    return [part._buffers[name] for part, name in where]


def _flat(where: list[tuple[nn.Module, str]]) -> Tensor:
    return torch.cat([buffer.reshape(-1) for buffer in _tensors(where)])
