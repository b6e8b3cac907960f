"""What torch.compile sees: one switch for elementwise functions of tensors, and values of a kernel as constants.

Compiling is off on a CPU, and for float64, where exactness is asked for: a number among the arguments of a compiled
function reaches Triton as float32. MMKERNEL_COMPILE=0 turns it off everywhere, MMKERNEL_COMPILE=1 on, CPU included.
Inside a torch.compile of one's own the functions are traced like any others.
"""

import os
import warnings
from collections.abc import Callable
from functools import cache, wraps
from inspect import isfunction
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

_OF_ANY_MODULE = {*vars(nn.Module()), '_kept', '_number'}
_NUMBERS = count()
_BY_NUMBER: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
_eager: set = set()  # what could not be compiled: functions with their arguments, and the names that were said


def switched_on(x: Tensor) -> bool:
    """Whether functions of a tensor like ``x`` are compiled."""
    word = os.environ.get('MMKERNEL_COMPILE', '')
    if x.device.type == 'cpu':
        return word not in ('', '0')
    return word != '0' and x.device.type == 'cuda' and x.dtype != torch.float64


def fused(function: Callable, *args: Any) -> Any:
    """function(*args), through torch.compile where that is switched on. The first argument is a tensor.

    What cannot be traced as a whole, a kernel's phi for instance, runs as it is and says so once.
    """
    if torch.compiler.is_compiling() or not switched_on(args[0]):
        return function(*args)
    key = (function, *(a if isfunction(a) else type(a) for a in args if not isinstance(a, Tensor)))
    if key not in _eager:
        try:
            return _compiled(function)(*args)
        except Exception as error:  # if it is not the compiler's, the plain call raises it again
            result = function(*args)
            names = [type(a).__name__ for a in args if isinstance(a, nn.Module)] or [function.__name__]
            if not _eager.intersection(names):
                said = f'{type(error).__name__}: {error}'.strip().splitlines()[0]
                warnings.warn(
                    f'{" ".join(names)} runs without torch.compile, with more kernel launches: {said}. '
                    'MMKERNEL_COMPILE=0 turns compiling off.',
                    stacklevel=2,
                )
            _eager.update(names, [key])
            return result
    return function(*args)


@cache
def _compiled(function: Callable) -> Callable:
    return torch.compile(function, fullgraph=True)


class Numbered(nn.Module):
    """A module with a number that stands for it and for what its attributes are now; no copy shares it.

    torch.compile folds a call into a constant if its arguments are constants. A module is none up to torch 2.13, and a
    number that is read from one is not guarded once it has changed.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> 'Numbered':
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
    own = [{k: v for k, v in vars(module).items() if k not in _OF_ANY_MODULE} for module in kernel.modules()]
    return tuple(map(_mark, (*own, dict(kernel.named_buffers()), dict(kernel.named_parameters()))))


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
