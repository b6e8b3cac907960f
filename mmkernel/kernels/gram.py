"""How the big products of a pairwise objective are made: precision, layout over ranks, and the symmetric X X'.

Inputs of a product may be rounded to half precision; it accumulates and comes out in float32. Everything between two
products (phi, softmax, sums) stays in float32, and what would drown in rounding stays outside: the diagonal, 1/N^2.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmkernel.distributed import world_size

_DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
PRECISIONS = ('auto', *_DTYPES)
LAYOUTS = ('auto', 'rows', 'columns')
TRANSPORTS = (None, 'bfloat16', 'float16')
HALVES = (torch.bfloat16, torch.float16)

_LEAF = 128  # rows of X X' that are not halved any further on a CPU: 56 % of the full product at N = 1024
_CACHED_ENTRIES = 2**16  # what an elementwise pass touches at a time on a CPU, so that it stays in cache


@dataclass(frozen=True)
class Engine:
    """The three words that every pairwise objective and its head take.

    Args:
        precision: of the inputs of the products: 'float32', 'bfloat16', 'float16', or 'auto', the half precision in which
            the encoder made the embeddings where they live on a GPU, else float32. float64 embeddings stay float64.
        layout: how N rows lie on W ranks. 'rows': each rank gathers all rows and makes its B x N block of the Gram matrix;
            'columns': each rank holds q/W columns of all rows, and the ranks' partial Gram matrices are summed.
            'auto': rows on one rank, else columns if q >= 4 N.
        transport_dtype: None, or the half precision in which rows travel between ranks.
    """

    precision: str = 'auto'
    layout: str = 'auto'
    transport_dtype: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (('precision', PRECISIONS), ('layout', LAYOUTS), ('transport_dtype', TRANSPORTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f'{name} is one of {", ".join(map(repr, allowed))}, got {getattr(self, name)!r}.')

    def options(self, z: Tensor, computed_in: torch.dtype | None = None) -> dict[str, Any]:
        """The three keywords for promoted embeddings ``z`` that were computed in another dtype: 'auto' becomes that one."""
        precision = self.precision
        if precision == 'auto' and z.is_cuda and computed_in in HALVES:
            precision = str(computed_in).removeprefix('torch.')
        return dict(precision=precision, layout=self.layout, transport_dtype=self.transport_dtype)

    def dtype(self, z: Tensor) -> torch.dtype:
        """The dtype in which rows ``z`` enter a product."""
        if z.dtype == torch.float64:
            return torch.float64
        if self.precision == 'auto':
            return z.dtype if z.is_cuda and z.dtype in HALVES else torch.float32
        return _DTYPES[self.precision]

    def transport(self, z: Tensor) -> torch.dtype:
        """The dtype in which rows ``z`` travel. Half inputs of a product travel as such: nothing more is lost."""
        if z.dtype == torch.float64 or (self.transport_dtype is None and self.dtype(z) not in HALVES):
            return z.dtype
        return self.dtype(z) if self.transport_dtype is None else _DTYPES[self.transport_dtype]

    def rounds(self, z: Tensor) -> bool:
        """Whether rows ``z`` lose digits on their way into a product."""
        return self.dtype(z) in HALVES or (world_size() > 1 and self.transport(z) in HALVES)


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in ``dtype``; ValueError where finite numbers leave float16's range, 6e-5 to 65 504."""
    if x.dtype == dtype:
        return x
    y = x.to(dtype)
    if dtype == torch.float16 and not torch.isfinite(y).all() and torch.isfinite(x).all():
        raise ValueError(
            f'Numbers up to {x.abs().max().item():.3g} do not fit into float16, which ends at 65504. '
            "Use precision='bfloat16' (and transport_dtype='bfloat16'), which has the range of float32."
        )
    return y


def as_input(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x rounded to ``dtype`` as ``multiply`` takes it: in that dtype on a GPU; on a CPU, whose half products come out in
    half, in float32 with the digits of ``dtype``."""
    x = rounded(x, dtype)
    return x if x.is_cuda or dtype not in HALVES else x.float()


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """a b of two ``as_input`` matrices, in float32 (float64 for float64)."""
    if a.dtype in HALVES:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.mm(a, b)


def product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a b with inputs rounded to ``dtype``, accumulated and returned in float32 (float64 for float64)."""
    return multiply(as_input(a, dtype), as_input(b, dtype))


def symmetric_gram(x: Tensor) -> Tensor:
    """X X' of (n, q) ``as_input`` rows: (n, n). Squares right of the diagonal are multiplied, then mirrored."""
    G = x.new_empty((len(x), len(x)), dtype=torch.float32 if x.dtype in HALVES else x.dtype)
    _fill_symmetric(G, x, _LEAF if x.device.type == 'cpu' else 8 * _LEAF)
    return G


def _fill_symmetric(G: Tensor, x: Tensor, leaf: int) -> None:
    n = x.shape[0]
    h = n if n <= leaf else (n // 2 + 63) // 64 * 64  # halves whose rows fill the tiles of a product
    square = G[:h, h:] if h < n else G
    left, right = x[:h], x[h:] if h < n else x
    if x.dtype in HALVES:
        square.copy_(multiply(left, right.T))
    else:
        torch.mm(left, right.T, out=square)
    if h < n:
        G[h:, :h] = square.T
        _fill_symmetric(G[:h, :h], left, leaf)
        _fill_symmetric(G[h:, h:], right, leaf)


def row_chunks(x: Tensor) -> list[slice]:
    """Slices of the rows of ``x`` for elementwise passes: small enough for the cache of a CPU, few launches on a GPU."""
    n, width = x.shape[0], max(1, x[:1].numel())
    entries = _CACHED_ENTRIES if x.device.type == 'cpu' else 64 * _CACHED_ENTRIES  # temporaries of 16 MB a launch
    step = max(1, entries // width)
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def require_memory(entries: int, x: Tensor, what: str, fix: str) -> None:
    """ValueError if ``entries`` numbers of x's dtype (at least float32) surely do not fit where ``x`` lives."""
    needed = entries * max(4, x.element_size())
    available = available_memory(x.device)
    if available is not None and needed > available:
        raise ValueError(f'{what} needs {needed / 1e9:.3g} GB; {available / 1e9:.3g} GB are free on {x.device}. {fix}')


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated; None where nobody can tell."""
    if device.type == 'cuda':
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != 'cpu':
        return None
    try:
        with open('/proc/meminfo') as lines:  # counts reclaimable file cache, which sysconf's free pages do not
            fields = dict(line.split(':') for line in lines)
        return int(fields['MemAvailable'].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        names = getattr(os, 'sysconf_names', {})
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') if 'SC_PHYS_PAGES' in names else None
