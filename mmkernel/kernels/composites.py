"""Sums, multiples and products of kernels, which are kernels again."""

import math
from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.kernels.kernel import Kernel


class SumKernel(Kernel):
    """phi = phi_1 + ... + phi_n. ``kernels``: kernels or their configs."""

    def __init__(self, kernels: list[Kernel | dict]) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(kernels_of(kernels))

    def phi(self, t: Tensor, q: int) -> Tensor:
        return sum(kernel.phi(t, q) for kernel in self.kernels)

    def dphi(self, t: Tensor, q: int) -> Tensor:
        return sum(kernel.dphi(t, q) for kernel in self.kernels)

    def monomials(self, q: int) -> tuple[float, ...] | None:
        parts = [kernel.monomials(q) for kernel in self.kernels]
        return None if None in parts else strip_zeros([sum(a) for a in zip_longest(*parts, fillvalue=0.0)])

    def coefficients(self, q: int, order: int) -> Tensor:
        return self._sum(q, order)[0]

    def coefficient_errors(self, q: int, order: int) -> Tensor:
        return self._sum(q, order)[1]

    def in_space(self, g: Tensor, rho: Tensor, rho_: Tensor, q: int) -> tuple[Tensor, Tensor, Tensor]:
        parts = [kernel.in_space(g, rho, rho_, q) for kernel in self.kernels]
        return tuple(map(sum, zip(*parts, strict=True)))

    def target(self, rho: Tensor, q: int) -> Tensor:
        return sum(kernel.target(rho, q) for kernel in self.kernels)

    def target_constant(self, q: int) -> float:
        return sum(kernel.target_constant(q) for kernel in self.kernels)

    def value_at_zero(self, q: int) -> float:
        return sum(kernel.value_at_zero(q) for kernel in self.kernels)

    def restrict(self, radius: float | str) -> 'SumKernel':
        return SumKernel([kernel.restrict(radius) for kernel in self.kernels])

    def _sum(self, q: int, order: int) -> Tensor:
        """(2, order + 1): b and errors, of the parts; by quadrature of the whole where their digits cancel."""
        parts = [torch.stack([k.coefficients(q, order), k.coefficient_errors(q, order)]) for k in self.kernels]
        b, errors = found = sum(parts)
        return self._expansion(q, order) if bool((errors > 1e-6 * b.abs()).any()) else found


class ScaledKernel(Kernel):
    """phi = scale * phi_1, scale > 0. ``kernel``: a kernel or its config."""

    def __init__(self, kernel: Kernel | dict, scale: float) -> None:
        super().__init__()
        check_numbers('ScaledKernel', scale=scale)
        (self.kernel,) = kernels_of([kernel])
        self.scale = float(scale)

    def phi(self, t: Tensor, q: int) -> Tensor:
        return self.scale * self.kernel.phi(t, q)

    def dphi(self, t: Tensor, q: int) -> Tensor:
        return self.scale * self.kernel.dphi(t, q)

    def monomials(self, q: int) -> tuple[float, ...] | None:
        part = self.kernel.monomials(q)
        return None if part is None else tuple(self.scale * a for a in part)

    def coefficients(self, q: int, order: int) -> Tensor:
        return self.scale * self.kernel.coefficients(q, order)

    def coefficient_errors(self, q: int, order: int) -> Tensor:
        return self.scale * self.kernel.coefficient_errors(q, order)

    def in_space(self, g: Tensor, rho: Tensor, rho_: Tensor, q: int) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(self.scale * part for part in self.kernel.in_space(g, rho, rho_, q))

    def target(self, rho: Tensor, q: int) -> Tensor:
        return self.scale * self.kernel.target(rho, q)

    def target_constant(self, q: int) -> float:
        return self.scale * self.kernel.target_constant(q)

    def value_at_zero(self, q: int) -> float:
        return self.scale * self.kernel.value_at_zero(q)

    def restrict(self, radius: float | str) -> 'ScaledKernel':
        return ScaledKernel(self.kernel.restrict(radius), self.scale)


class ProductKernel(Kernel):
    """phi = phi_1 ... phi_n; positive definite if the factors are (Schur). ``kernels``: kernels or their configs."""

    def __init__(self, kernels: list[Kernel | dict]) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(kernels_of(kernels))

    def phi(self, t: Tensor, q: int) -> Tensor:
        return math.prod(kernel.phi(t, q) for kernel in self.kernels)

    def dphi(self, t: Tensor, q: int) -> Tensor:
        value, slope = self.kernels[0].phi(t, q), self.kernels[0].dphi(t, q)
        for kernel in self.kernels[1:]:
            value, slope = value * kernel.phi(t, q), slope * kernel.phi(t, q) + value * kernel.dphi(t, q)
        return slope

    def monomials(self, q: int) -> tuple[float, ...] | None:
        product: tuple[float, ...] = (1.0,)
        for kernel in self.kernels:
            a, b = kernel.monomials(q), product
            if a is None:
                return None
            degrees = range(len(a) + len(b) - 1)
            product = strip_zeros([sum(a[i] * b[k - i] for i in range(len(a)) if 0 <= k - i < len(b)) for k in degrees])
        return product


def strip_zeros(monomials: list[float]) -> tuple[float, ...]:
    """Without the zeros at the end; one number at least."""
    degree = max((k for k, a in enumerate(monomials) if a), default=0)
    return tuple(float(a) for a in monomials[: degree + 1])


def horner(a: Sequence[float], t: Tensor) -> Tensor:
    """sum_k a_k t^k, two operations a degree."""
    if len(a) == 1:
        return torch.full_like(t, a[0])
    value = t * a[-1] + a[-2]
    for lower in reversed(a[:-2]):
        value = value * t + lower
    return value


def kernels_of(kernels: list[Kernel | dict]) -> list[Kernel]:
    if not kernels:
        raise ValueError('A sum or product of kernels needs at least one kernel, got none.')
    if any(isinstance(kernel, dict) for kernel in kernels):
        from mmkernel.registry import KERNELS  # here, so that kernels made in Python need torch alone

        kernels = [KERNELS.build(kernel) if isinstance(kernel, dict) else kernel for kernel in kernels]
    return [check_kernel(kernel, 'A sum or product') for kernel in kernels]


def check_kernel(kernel: Kernel, owner: str) -> Kernel:
    """``kernel``; TypeError, with the likely fix, for a class, a name or a function."""
    if isinstance(kernel, Kernel):
        return kernel
    fix = (
        'a class is made by MyKernel(...), a name is a config in dict(type=name), a phi goes into a subclass of Kernel'
    )
    raise TypeError(f'{owner} expected a Kernel or its config, got {kernel!r}: {fix}.')
