"""Losses of half-precision tensors are computed in float32."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from mmkernel.kernels.layouts import HALVES


def full_precision(objective: Callable) -> Callable:
    """``objective`` with half-precision arguments in float32 and autocast off, so float16 does not overflow in a square.

    Tensors, alone or in a list, become float32 inside; gradients come back in the dtype that was given. float64 stays. A tensor
    that is given twice stays one, since an objective may treat it as symmetric.
    """

    @wraps(objective)
    def computed(*args: Any, **kwargs: Any) -> Any:
        halves: dict[int, Tensor] = {}
        kinds = set()

        def raised(x: Any) -> Any:
            if isinstance(x, list):
                return [raised(item) for item in x]
            if isinstance(x, Tensor):
                kinds.add(x.device.type)
                if x.dtype in HALVES:
                    if id(x) not in halves:
                        halves[id(x)] = x.float()
                    return halves[id(x)]
            return x

        args, kwargs = [raised(x) for x in args], {name: raised(x) for name, x in kwargs.items()}
        cast = [kind for kind in kinds if kind != 'meta' and torch.is_autocast_enabled(kind)]
        if not cast:
            return objective(*args, **kwargs)
        with torch.autocast(cast[0], enabled=False):
            return objective(*args, **kwargs)

    return computed
