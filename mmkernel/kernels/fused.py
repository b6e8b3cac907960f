"""One switch for torch.compile: elementwise functions of tensors become one kernel each where a GPU runs them.

Off on a CPU, and for float64, where exactness is asked for: a number among the arguments of a compiled function reaches
Triton as float32. MMKERNEL_COMPILE=0 turns it off everywhere, MMKERNEL_COMPILE=1 on, CPU included. Inside a torch.compile
of one's own the functions are traced like any others.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from inspect import isfunction
from typing import Any

import torch
from torch import Tensor

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
            names = [type(a).__name__ for a in args if isinstance(a, torch.nn.Module)] or [function.__name__]
            if not _eager.intersection(names):
                warnings.warn(
                    f'{" ".join(names)} runs without torch.compile, with more kernel launches: '
                    f'{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ""}. '
                    'MMKERNEL_COMPILE=0 turns compiling off.',
                    stacklevel=2,
                )
            _eager.update(names, [key])
            return result
    return function(*args)


@cache
def _compiled(function: Callable) -> Callable:
    return torch.compile(function, fullgraph=True)
