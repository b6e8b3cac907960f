"""Changes of state that happen only in a real optimizer step. Whether it was real is a flag on the device, never read here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def move(buffer: Tensor, value: Tensor, real: Tensor | None = None) -> None:
    """buffer <- value where ``real``, a 0-dim bool tensor, is set (None: it is); else ``buffer`` keeps its bits.

    By ``where``, never by a product: 0 x NaN is NaN.
    """
    buffer.copy_(value if real is None else torch.where(real, value, buffer))


def tell(change: Callable[..., None], *args: Any, real: Tensor | None = None) -> None:
    """``change(*args, real)``: of a head's ``commit`` or a target's ``update``. One without ``real`` costs a read of the host."""
    if takes_flag(change):
        change(*args, real=real)
    elif real is None or bool(real):
        change(*args)


def takes_flag(change: Callable[..., None]) -> bool:
    return _takes_flag(getattr(change, '__func__', change))


@lru_cache(maxsize=256)
def _takes_flag(function: Callable[..., None]) -> bool:
    return 'real' in inspect.signature(function).parameters
