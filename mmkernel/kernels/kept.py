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
    """All that a kernel and its parts hold, hashable. An object of a class without __eq__ stands for itself."""
    found = []
    for module in kernel.modules():
        own = {name: value for name, value in vars(module).items() if name not in _OF_ANY_MODULE}
        found.append(_mark({**own, **module._buffers, **module._parameters}))
    return tuple(found)


def _mark(value: Any) -> Any:
    if isinstance(value, Tensor):  # itself and the number of its changes in place
        return value, 0 if value.is_inference() else value._version
    if isinstance(value, dict):
        return tuple((key, _mark(inner)) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_mark, value))
    if hasattr(value, 'tobytes'):  # an array, whose repr leaves out its middle
        return value.tobytes()
    return repr(value) if value.__hash__ is None else value
