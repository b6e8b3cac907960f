"""Matrix products with rounded inputs, and small words of objectives that make their own gradients.

A product may have half-precision inputs; it accumulates and comes out in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmkernel.distributed import max_over_ranks

if TYPE_CHECKING:
    from mmkernel.kernels.layouts import Engine

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


def product(a: Tensor, b: Tensor, engine: Engine) -> Tensor:
    """a b of two matrices, forward and backward with inputs as ``engine`` rounds them: (m, n), (n, p) -> (m, p)."""
    return _Product.apply(a, b, engine)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, engine: Engine) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.engine = engine
        return _rounded_product(a, b, engine.dtype(a))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        refuse_second_derivative()
        (a, b), dtype = ctx.saved_tensors, ctx.engine.dtype(upstream)
        return _rounded_product(upstream, b.mT, dtype), _rounded_product(a.mT, upstream, dtype), None


def _rounded_product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    (a, of_a), (b, of_b) = rounded(a, dtype), rounded(b, dtype)
    made = multiply(as_input(a, dtype)[None], as_input(b, dtype)[None])[0]
    return made if of_a is None else made.mul_(of_a).mul_(of_b)
