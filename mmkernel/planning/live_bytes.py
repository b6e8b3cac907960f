"""How many bytes a computation holds at its peak, counted by what every operator makes and when it is freed: on a CPU, or the
meta device, which holds none.

    with LiveBytes() as live:
        loss(z).backward()
    assert live.peak <= limit, live

Counted is every storage that an operator makes inside, from its making to its end, as large as it is: ``fully_shard`` empties
storages and fills them again. What was there before is not. Memory inside one operator (a library's workspace) is not seen.
"""

from __future__ import annotations

import weakref
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """``now``: bytes made inside that are alive; ``peak``: their maximum; ``largest``: what was alive then, largest first.

    ``device``: count there alone. ``collectives``: (name, bytes that come out) of each, in order.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self.device, self.collectives = device, []
        self.now = self.peak = 0
        self._alive: dict[int, tuple[int, str]] = {}
        self._at_peak: list[tuple[int, str]] = []
        self._before: set[int] = set()
        self._keep: list[Any] = []

    def outside(self, *tensors: torch.Tensor) -> LiveBytes:
        """``tensors`` are there already: an operator that returns one of them makes nothing."""
        self._keep += [x.untyped_storage() for x in tensors]
        self._before |= {storage._cdata for storage in self._keep}
        return self

    def __enter__(self) -> LiveBytes:
        self._patch = mock.patch.object(torch.UntypedStorage, 'resize_', self._resizing(torch.UntypedStorage.resize_))
        self._patch.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patch.stop()
        super().__exit__(*error)

    def _resizing(self, resize: Any) -> Any:
        def resized(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            if self.device in (None, storage.device.type) and storage._cdata not in self._before:
                self._freed(storage._cdata)
                self._made(storage, 'resize_', set())
            return result

        return resized

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        given = {x.untyped_storage()._cdata for x in tensors}
        if func._schema.name.startswith('c10d::'):  # the first tensor is what comes out
            self.collectives.append((func._schema.name.removeprefix('c10d::'), tensors[0].nbytes))
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and self.device in (None, x.device.type):
                x = getattr(x, '_local_tensor', x)  # of one that is spread over ranks
                self._made(x.untyped_storage(), func._schema.name, given)
        return result

    def _made(self, storage: torch.UntypedStorage, name: str, given: set[int]) -> None:
        key = storage._cdata
        if key in self._alive or key in self._before or key in given:
            return
        size = storage.nbytes()
        self._alive[key] = (size, name)
        self.now += size
        weakref.finalize(storage, self._freed, key).atexit = False
        if self.now > self.peak:
            self.peak, self._at_peak = self.now, list(self._alive.values())

    def _freed(self, key: int) -> None:
        self.now -= self._alive.pop(key, (0, ''))[0]

    @property
    def largest(self) -> list[tuple[int, str]]:
        return sorted(self._at_peak, reverse=True)

    def __repr__(self) -> str:
        return f'{self.peak} bytes at the peak: ' + ', '.join(f'{name} {size}' for size, name in self.largest[:12])
