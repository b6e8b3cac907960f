"""Rotation-invariant kernels K(u, v) = phi(u.v) on the sphere S^{q-1}, and when they are positive definite.

Schoenberg (1942): K is positive definite iff phi = sum_l b_l P_l(q; .) with every b_l >= 0. Only l >= 1 matters for the
distance to the uniform distribution, E_{z,z'~Q} K - b_0 = sum_{l>=1} b_l E P_l(z.z').
"""

import inspect
import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from mmkernel.kernels.fused import Numbered, kept
from mmkernel.kernels.legendre import check_dimension, expansion
from mmkernel.kernels.panels import Profile
from mmkernel.kernels.trial import Tried


class Kernel(Numbered, metaclass=Tried):
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
        if not self.has_closed_form(q):
            return self._expansion(q, order)[1]
        return 1e-13 * self.coefficients(q, order).abs()

    def has_closed_form(self, q: int) -> bool:
        """Whether ``coefficients`` are more than the quadrature of this class."""
        return type(self).coefficients is not Kernel.coefficients

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

    def positive_definiteness(self, q: int, order: int = 8) -> 'PositiveDefiniteness':
        """Schoenberg's criterion up to degree ``order`` in dimension ``q``."""
        closed = self.has_closed_form(q) and type(self).coefficient_errors is Kernel.coefficient_errors
        b, errors = self.coefficients(q, order), None if closed else self.coefficient_errors(q, order)
        values = self.profile(q)(_even_angles())
        if errors is not None and order and not bool(b[1:].any()) and values.max() > values.min():
            raise ValueError(
                f'{type(self).__name__} at q = {q}: no verdict, b_1 ... b_{order} are all below the smallest number. Phi is '
                'constant where inner products of that width lie.'
            )
        return PositiveDefiniteness(check_dimension(q), b, errors)

    def extra_repr(self) -> str:
        given = {name: getattr(self, name, self) for name in inspect.signature(type(self)).parameters}
        return ', '.join(f'{name}={value}' for name, value in given.items() if not isinstance(value, nn.Module))

    def __add__(self, other: 'Kernel') -> 'Kernel':
        from mmkernel.kernels.composites import SumKernel

        if not isinstance(other, Kernel):
            raise TypeError(f'A kernel can be added to a kernel, not to {type(other).__name__}.')
        return SumKernel([self, other])

    def __mul__(self, other: 'Kernel | float') -> 'Kernel':
        from mmkernel.kernels.composites import ProductKernel, ScaledKernel

        if isinstance(other, Kernel):
            return ProductKernel([self, other])
        if isinstance(other, Real):
            return ScaledKernel(self, float(other))
        raise TypeError(f'A kernel can be multiplied by a positive number or a kernel, not by {type(other).__name__}.')

    __rmul__ = __mul__


@dataclass
class PositiveDefiniteness:
    """Whether phi = sum_l b_l P_l(q; .) has all b_l >= 0 for l >= 1, as far as ``coefficients`` reach; b_0 is reported apart."""

    q: int
    coefficients: Tensor  # (order + 1,) float64, b_0 first
    errors: Tensor | None = None  # (order + 1,): a b_l that is smaller counts as 0

    @property
    def constant(self) -> float:
        """b_0 = E phi(u.v) under the uniform distribution: shifts the energy, never its gradient."""
        return float(self.coefficients[0])

    @property
    def negative(self) -> list[int]:
        """Degrees l >= 1 with b_l < 0 beyond rounding."""
        return self._degrees(self.coefficients < -self._rounding)

    @property
    def vanishing(self) -> list[int]:
        """Degrees l >= 1 with b_l = 0 up to rounding: moments that the kernel does not see."""
        return self._degrees(self.coefficients.abs() <= self._rounding)

    @property
    def _rounding(self) -> Tensor:
        """``errors``, or 1e-9 of the largest among b_{l-1}, b_l, b_{l+1} without b_0: those of a phi with kinks grow fast."""
        if self.errors is not None:
            return self.errors
        size = torch.nn.functional.pad(self.coefficients[1:].abs(), (2, 1))
        return 1e-9 * torch.stack([size[:-2], size[1:-1], size[2:]]).amax(0)

    @staticmethod
    def _degrees(mask: Tensor) -> list[int]:
        return [l for l in mask.nonzero().flatten().tolist() if l >= 1]

    def __bool__(self) -> bool:
        return not self.negative

    def __str__(self) -> str:
        order = len(self.coefficients) - 1
        verdict = f'not positive definite: b_l < 0 at l = {self.negative}' if self.negative else 'positive definite'
        blind = f'; blind to degrees {self.vanishing}' if self.vanishing else ''
        values = ', '.join(f'{b:.4g}' for b in self.coefficients[1:].tolist())
        return f'{verdict} up to l = {order} in R^{self.q}{blind}; b_0 = {self.constant:.4g}; b_1.. = {values}'


def _even_angles() -> Tensor:
    """t of [-1, 1], both ends among them, denser towards these."""
    return torch.linspace(0, torch.pi, 2049, dtype=torch.float64).cos()
