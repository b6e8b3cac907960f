"""Rotation-invariant kernels K(u, v) = phi(u.v) on the sphere S^{q-1}, and what can be built from them.

Schoenberg (1942): K is positive definite iff phi = sum_l b_l P_l(q; .) with every b_l >= 0. Only l >= 1 matters for the
distance to the uniform distribution, E_{z,z'~Q} K - b_0 = sum_{l>=1} b_l E P_l(z.z').
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import zip_longest
from numbers import Real

import torch
from torch import Tensor, nn

from mmkernel.kernels.legendre import check_dimension, quadrature_coefficients


class Kernel(nn.Module):
    """K(u, v) = phi(u.v). A kernel of your own is a subclass with one method, ``phi``.

    Kernels have no parameters. ``k + k'``, ``c * k`` for c > 0 and ``k * k'`` are kernels again.
    """

    def phi(self, t: Tensor, q: int) -> Tensor:
        """phi(t) for t = u.v in [-1, 1], elementwise, in any floating type; ``q`` is the embedding width."""
        raise NotImplementedError(f'{type(self).__name__} has no phi(t, q): the one method that a kernel must define.')

    def dphi(self, t: Tensor, q: int) -> Tensor:
        """phi'(t), elementwise; by autograd unless a subclass knows better."""
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            values = self.phi(t, q)
            if not values.requires_grad:  # a constant phi
                return torch.zeros_like(t)
            (slope,) = torch.autograd.grad(values.sum(), t)
        return slope

    def monomials(self, q: int) -> tuple[float, ...] | None:
        """(a_0, ..., a_d) with phi(t) = sum_k a_k t^k: energies of degree 1 and 2 then need no Gram matrix.

        None: not a polynomial, or one that is evaluated otherwise. The last one is not 0, but for a constant phi.
        """
        return None

    def coefficients(self, q: int, order: int) -> Tensor:
        """(b_0, ..., b_order) of phi = sum_l b_l P_l(q; .); float64. By quadrature unless a subclass has the closed form."""
        return quadrature_coefficients(lambda t: self.phi(t, q), q, order)

    def value_at_one(self, q: int) -> float:
        """phi(1) = K(u, u) = sum_l b_l."""
        return float(self.phi(torch.ones((), dtype=torch.float64), q))

    def minimum(self, q: int) -> float:
        """The least phi(t) on a fine grid of [-1, 1]: whether a logarithm of an energy makes sense."""
        angle = torch.linspace(0, torch.pi, 2049, dtype=torch.float64)
        return float(self.phi(angle.cos(), q).min())

    def positive_definiteness(self, q: int, order: int = 8) -> PositiveDefiniteness:
        """Schoenberg's criterion up to degree ``order`` in dimension ``q``."""
        return PositiveDefiniteness(check_dimension(q), self.coefficients(q, order))

    def __add__(self, other: Kernel) -> Kernel:
        if not isinstance(other, Kernel):
            raise TypeError(f'A kernel can be added to a kernel, not to {type(other).__name__}.')
        return SumKernel([self, other])

    def __mul__(self, other: Kernel | float) -> Kernel:
        if isinstance(other, Kernel):
            return ProductKernel([self, other])
        if isinstance(other, Real):
            return ScaledKernel(self, float(other))
        raise TypeError(f'A kernel can be multiplied by a positive number or a kernel, not by {type(other).__name__}.')

    __rmul__ = __mul__


class SumKernel(Kernel):
    """phi = phi_1 + ... + phi_n. ``kernels``: kernels or their configs."""

    def __init__(self, kernels: list[Kernel | dict]) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(_kernels(kernels))

    def phi(self, t: Tensor, q: int) -> Tensor:
        return sum(kernel.phi(t, q) for kernel in self.kernels)

    def dphi(self, t: Tensor, q: int) -> Tensor:
        return sum(kernel.dphi(t, q) for kernel in self.kernels)

    def monomials(self, q: int) -> tuple[float, ...] | None:
        parts = [kernel.monomials(q) for kernel in self.kernels]
        return None if None in parts else strip_zeros([sum(a) for a in zip_longest(*parts, fillvalue=0.0)])

    def coefficients(self, q: int, order: int) -> Tensor:
        return sum(kernel.coefficients(q, order) for kernel in self.kernels)


class ScaledKernel(Kernel):
    """phi = scale * phi_1, scale > 0. ``kernel``: a kernel or its config."""

    def __init__(self, kernel: Kernel | dict, scale: float) -> None:
        super().__init__()
        if not 0 < scale < float('inf'):
            raise ValueError(f'A kernel can be scaled by a positive finite number, got {scale}.')
        (self.kernel,) = _kernels([kernel])
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


class ProductKernel(Kernel):
    """phi = phi_1 ... phi_n; positive definite if the factors are (Schur). ``kernels``: kernels or their configs."""

    def __init__(self, kernels: list[Kernel | dict]) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(_kernels(kernels))

    def phi(self, t: Tensor, q: int) -> Tensor:
        value = self.kernels[0].phi(t, q)
        for kernel in self.kernels[1:]:
            value = value * kernel.phi(t, q)
        return value

    def dphi(self, t: Tensor, q: int) -> Tensor:
        value, slope = self.kernels[0].phi(t, q), self.kernels[0].dphi(t, q)
        for kernel in self.kernels[1:]:
            value, slope = value * kernel.phi(t, q), slope * kernel.phi(t, q) + value * kernel.dphi(t, q)
        return slope

    def monomials(self, q: int) -> tuple[float, ...] | None:
        parts = [kernel.monomials(q) for kernel in self.kernels]
        return None if None in parts else reduce(_convolve, parts)


def strip_zeros(monomials: list[float]) -> tuple[float, ...]:
    """Without the zeros at the end; one number at least."""
    degree = max((k for k, a in enumerate(monomials) if a), default=0)
    return tuple(float(a) for a in monomials[: degree + 1])


def _convolve(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    """The coefficients of a product of polynomials."""
    product = [0.0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            product[i + j] += x * y
    return strip_zeros(product)


def _kernels(kernels: list[Kernel | dict]) -> list[Kernel]:
    if not kernels:
        raise ValueError('A sum or product of kernels needs at least one kernel, got none.')
    if any(isinstance(kernel, dict) for kernel in kernels):
        from mmkernel.registry import KERNELS  # here, so that kernels made in Python need torch alone

        kernels = [KERNELS.build(kernel) if isinstance(kernel, dict) else kernel for kernel in kernels]
    for kernel in kernels:
        if not isinstance(kernel, Kernel):
            raise TypeError(f'Expected a Kernel or its config, got {type(kernel).__name__}.')
    return list(kernels)


@dataclass
class PositiveDefiniteness:
    """Whether phi = sum_l b_l P_l(q; .) has all b_l >= 0 for l >= 1, as far as ``coefficients`` reach; b_0 is reported apart."""

    q: int
    coefficients: Tensor  # (order + 1,) float64, b_0 first

    @property
    def constant(self) -> float:
        """b_0 = E phi(u.v) under the uniform distribution: shifts the energy, never its gradient."""
        return float(self.coefficients[0])

    @property
    def negative(self) -> list[int]:
        """Degrees l >= 1 with b_l < 0 beyond rounding."""
        rounding = 1e-9 * float(self.coefficients.abs().max())
        return [l for l, b in enumerate(self.coefficients.tolist()) if l >= 1 and b < -rounding]

    @property
    def vanishing(self) -> list[int]:
        """Degrees l >= 1 with b_l = 0 up to rounding: moments that the kernel does not see."""
        rounding = 1e-9 * float(self.coefficients.abs().max())
        return [l for l, b in enumerate(self.coefficients.tolist()) if l >= 1 and abs(b) <= rounding]

    def __bool__(self) -> bool:
        return not self.negative

    def __str__(self) -> str:
        order = len(self.coefficients) - 1
        verdict = f'not positive definite: b_l < 0 at l = {self.negative}' if self.negative else 'positive definite'
        blind = f'; blind to degrees {self.vanishing}' if self.vanishing else ''
        values = ', '.join(f'{b:.4g}' for b in self.coefficients[1:].tolist())
        return f'{verdict} up to l = {order} in R^{self.q}{blind}; b_0 = {self.constant:.4g}; b_1.. = {values}'
