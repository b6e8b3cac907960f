"""Values that depend on a kernel and its arguments alone, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor, nn

_OF_ANY_MODULE = {*vars(nn.Module()), '_kept'}


def kept(method: Callable) -> Callable:
    """Made once per (q, ...) and state of the kernel, and kept with the instance; a tensor is handed out as a clone."""

    @wraps(method)
    def look_up(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        store = self.__dict__.setdefault('_kept', {})
        key = (method, args, tuple(kwargs.items()), _state(self))
        if key not in store:
            if len(store) >= 64:  # a kernel whose scale moves has a new state each time
                store.clear()
            store[key] = method(self, *args, **kwargs)
        return store[key].clone() if isinstance(store[key], Tensor) else store[key]

    return look_up


def _state(kernel: nn.Module) -> tuple:
    """All that a kernel and its parts hold, hashable; a tensor stands for itself and the number of its changes in place."""
    found = []
    for module in kernel.modules():
        own = {name: value for name, value in vars(module).items() if name not in _OF_ANY_MODULE}
        for name, value in {**own, **module._buffers, **module._parameters}.items():
            if isinstance(value, Tensor):
                value = (value, 0 if value.is_inference() else value._version)
            elif value.__hash__ is None or isinstance(value, tuple):
                value = repr(value)
            found.append((name, value))
    return tuple(found)
