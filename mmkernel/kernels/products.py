"""Matrix products with rounded inputs, and small words of objectives that make their own gradients.

A product may have half-precision inputs; it accumulates and comes out in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkernel.distributed import max_over_ranks

HALVES = (torch.bfloat16, torch.float16)


def refuse_second_derivative() -> None:
    """Under create_graph=True a gradient that was made without a graph would pass for a constant."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            'This objective has no second derivative: call backward or autograd.grad without create_graph=True.'
        )


def sum_of(terms: list[Tensor]) -> Tensor:
    """terms[0] + terms[1] + ..., without the 0 of Python's sum, which is a launch."""
    return sum(terms[1:], terms[0])


def promoted(z: Tensor) -> Tensor:
    """Half precision -> float32; float64 stays."""
    return z if z.dtype == torch.float64 else z.float()


def rounded(x: Tensor, dtype: torch.dtype, everywhere: bool = False) -> tuple[Tensor, Tensor | None]:
    """x in ``dtype``, and what to multiply by afterwards: float16 ends at 6e-5 and 65 504, so x is divided by its maximum.

    ``everywhere``: the maximum over ranks, for what travels between them.
    """
    if dtype != torch.float16 or x.dtype == dtype:
        return x.to(dtype), None
    largest = x.abs().amax().clamp_min(torch.finfo(x.dtype).tiny)
    largest = max_over_ranks(largest) if everywhere else largest
    return (x / largest).to(dtype), largest


def as_input(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as ``multiply`` takes it. A CPU has no half product that comes out in float32: there the digits are those of
    ``dtype``, and the dtype is float32."""
    x = x.to(dtype)
    return x if x.is_cuda or dtype not in HALVES else x.float()


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Batched a b of two ``as_input`` matrices, in float32 (float64 for float64), whatever autocast would make of it."""
    if a.device.type != 'meta' and torch.is_autocast_enabled(a.device.type):
        with torch.autocast(a.device.type, enabled=False):
            return multiply(a, b)
    return torch.bmm(a, b, out_dtype=torch.float32) if a.dtype in HALVES else torch.bmm(a, b)
