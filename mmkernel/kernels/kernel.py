"""Rotation-invariant kernels K(u, v) = phi(u.v) on the sphere S^{q-1}, and what can be built from them.

Schoenberg (1942): K is positive definite iff phi = sum_l b_l P_l(q; .) with every b_l >= 0. Only l >= 1 matters for the
distance to the uniform distribution, E_{z,z'~Q} K - b_0 = sum_{l>=1} b_l E P_l(z.z').
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABCMeta
from functools import reduce
from itertools import zip_longest
from numbers import Real
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from mmkernel.kernels.definiteness import PositiveDefiniteness
from mmkernel.kernels.kept import Numbered, kept
from mmkernel.kernels.legendre import check_dimension, expansion
from mmkernel.kernels.panels import Profile
from mmkernel.kernels.trial import try_kernel


class _Tried(ABCMeta):
    """A kernel is tried when it is whole, whoever wrote its __init__: a subclass, a mixin or ``dataclass``."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Kernel:
        kernel = super().__call__(*args, **kwargs)
        try_kernel(kernel)
        return kernel

    @property
    def __signature__(cls) -> inspect.Signature:  # of __init__, not of __call__
        return inspect.signature(MethodType(cls.__init__, cls))


class Kernel(Numbered, metaclass=_Tried):
    """K(u, v) = phi(u.v). A kernel of your own is a subclass with one method, ``phi``.

    Kernels have no parameters. ``k + k'``, ``c * k`` for c > 0 and ``k * k'`` are kernels again. A kernel is tried once, when
    it is made (``trial.py``). ``coefficients``, ``monomials``, ``value_at_one`` and ``minimum`` are found once for each q.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in ('coefficients', 'monomials', 'value_at_one', 'minimum'):
            if name in cls.__dict__:
                setattr(cls, name, kept(cls.__dict__[name]))

    def phi(self, t: Tensor, q: int) -> Tensor:
        """phi(t) for t = u.v in [-1, 1], elementwise, in any floating type; ``q`` is the embedding width."""
        raise NotImplementedError(f'{type(self).__name__} has no phi(t, q): the one method that a kernel must define.')

    def dphi(self, t: Tensor, q: int) -> Tensor:
        """phi'(t), elementwise; in forward mode, which torch.compile traces whole, unless a subclass knows better."""
        return torch.func.jvp(lambda t: self.phi(t, q), (t,), (torch.ones_like(t),))[1]

    def monomials(self, q: int) -> tuple[float, ...] | None:
        """(a_0, ..., a_d) with phi(t) = sum_k a_k t^k: energies of degree 1 and 2 then need no Gram matrix.

        None: not a polynomial, or one that is evaluated otherwise. The last one is not 0, but for a constant phi.
        """
        return None

    def profile(self, q: int) -> Profile:
        """t -> phi(t, q) at a copy of t, where the kernel's buffers are."""
        device = next((buffer.device for buffer in self.buffers()), None)
        return lambda t: self.phi(t.to(device or t.device, copy=True), q).to(t.device)

    def coefficients(self, q: int, order: int) -> Tensor:
        """(b_0, ..., b_order) of phi = sum_l b_l P_l(q; .); float64. By quadrature unless a subclass has the closed form.

        ValueError where quadrature does not know a b_l to 1e-6.
        """
        return self._expansion(q, order)[0]

    def coefficient_errors(self, q: int, order: int) -> Tensor:
        """An estimate of the error of each of ``coefficients``; a closed form is taken at its word."""
        if type(self).coefficients is Kernel.coefficients:
            return self._expansion(q, order)[1]
        return 1e-13 * self.coefficients(q, order).abs()

    @kept
    def _expansion(self, q: int, order: int) -> Tensor:
        try:
            return torch.stack(expansion(self.profile(q), q, order))
        except ValueError as error:
            raise ValueError(f'{type(self).__name__}: {error}') from None

    @kept
    def known_constant(self, q: int) -> float | None:
        """b_0; None, and a warning, where it is not known to 1e-6: such a kernel trains, only its MMD^2 cannot be told."""
        try:
            return float(self.coefficients(q, 0)[0])
        except ValueError as error:
            warnings.warn(f'No MMD^2 to uniform: {error}', stacklevel=3)
            return None

    @kept
    def value_at_one(self, q: int) -> float:
        """phi(1) = K(u, u) = sum_l b_l."""
        return float(self.profile(q)(torch.ones(1, dtype=torch.float64)))

    @kept
    def minimum(self, q: int) -> float:
        """The least phi(t) on a fine grid of [-1, 1]: whether a logarithm of an energy makes sense."""
        return float(self.profile(q)(_even_angles()).min())

    def positive_definiteness(self, q: int, order: int = 8) -> PositiveDefiniteness:
        """Schoenberg's criterion up to degree ``order`` in dimension ``q``."""
        cls = type(self)
        closed = cls.coefficients is not Kernel.coefficients and cls.coefficient_errors is Kernel.coefficient_errors
        b, errors = self.coefficients(q, order), None if closed else self.coefficient_errors(q, order)
        values = self.profile(q)(_even_angles())
        if errors is not None and order and not bool(b[1:].any()) and values.max() > values.min():
            raise ValueError(
                f'{type(self).__name__} at q = {q}: no verdict, b_1 ... b_{order} are all below the smallest number. Phi is '
                'constant where inner products of that width lie.'
            )
        return PositiveDefiniteness(check_dimension(q), b, errors)

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
        return self._sum(q, order)[0]

    def coefficient_errors(self, q: int, order: int) -> Tensor:
        return self._sum(q, order)[1]

    def _sum(self, q: int, order: int) -> Tensor:
        """(2, order + 1): b and errors, of the parts; by quadrature of the whole where their digits cancel."""
        found = torch.stack(
            [
                sum(kernel.coefficients(q, order) for kernel in self.kernels),
                sum(kernel.coefficient_errors(q, order) for kernel in self.kernels),
            ]
        )
        cancels = bool((found[1] > 1e-6 * found[0].abs()).any())
        return self._expansion(q, order) if cancels else found


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

    def coefficient_errors(self, q: int, order: int) -> Tensor:
        return self.scale * self.kernel.coefficient_errors(q, order)


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


def _even_angles() -> Tensor:
    """t of [-1, 1], both ends among them, denser towards these."""
    return torch.linspace(0, torch.pi, 2049, dtype=torch.float64).cos()


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
    return [check_kernel(kernel, 'A sum or product') for kernel in kernels]


def check_kernel(kernel: Kernel, owner: str) -> Kernel:
    """``kernel``; TypeError, with the likely fix, for a class, a name or a function."""
    if isinstance(kernel, Kernel):
        return kernel
    if isinstance(kernel, type) and issubclass(kernel, Kernel):
        given, fix = f'the class {kernel.__name__}', f'Make one: {kernel.__name__}(...).'
    elif isinstance(kernel, str):
        given, fix = repr(kernel), f'A config is a dict: dict(type={kernel!r}).'
    else:
        given, fix = type(kernel).__name__, 'A phi of your own goes into a subclass of Kernel.'
    raise TypeError(f'{owner} expected a Kernel or its config, got {given}. {fix}')
