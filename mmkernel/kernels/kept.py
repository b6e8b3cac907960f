"""Values that depend on a kernel and its arguments alone, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

_OF_ANY_MODULE = {*vars(nn.Module()), '_kept', '_number'}
_NUMBERS = count()
_BY_NUMBER: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()


class Numbered(nn.Module):
    """A module with a number that stands for it and for what its attributes are now; no copy shares it.

    torch.compile folds a call into a constant if its arguments are constants. A module is none up to torch 2.13, and a
    number that is read from one is not guarded once it has changed.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Numbered:
        made = super().__new__(cls)
        made._renumber()
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._renumber()

    def _renumber(self) -> None:
        _BY_NUMBER.pop(self.__dict__.get('_number'), None)
        self.__dict__['_number'] = next(_NUMBERS)
        _BY_NUMBER[self._number] = self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ('_kept', '_number')}


def kept(method: Callable) -> Callable:
    """Made once per (q, ...) and state of the kernel, and kept with the instance; a tensor is handed out as a clone.

    Inside torch.compile it is a constant, made on the host while the function is traced, and anew where an attribute of the
    kernel or of its parts is another; a buffer changed in place goes unnoticed there.
    """

    @torch.compiler.assume_constant_result
    def constant(numbers: tuple[int, ...], *args: Any, **kwargs: Any) -> Any:
        return found(_BY_NUMBER[numbers[0]], *args, **kwargs)

    @wraps(method)
    def look_up(self: Numbered, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            return constant(tuple(part._number for part in self.modules() if hasattr(part, '_number')), *args, **kwargs)
        return found(self, *args, **kwargs)

    def found(self: Numbered, *args: Any, **kwargs: Any) -> Any:
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
