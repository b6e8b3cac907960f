"""Memory of a training process on the CPU."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc refuses more on 64-bit machines


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for the next step instead of returning them to the system; True where that worked.

    Every step allocates the same activations. Returned pages come back zeroed, one fault per 4 KB: on the digits recipes a
    fifth of the processor time. The process then stays at its peak size. Other C libraries are left as they are.
    """
    if not sys.platform.startswith('linux'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
