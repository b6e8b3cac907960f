"""Schoenberg's criterion, read off an expansion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def _rounding(b: Tensor) -> Tensor:
    """1e-9 of the largest among b_{l-1}, b_l, b_{l+1} without b_0: those of a phi with kinks grow by orders of magnitude."""
    size = torch.nn.functional.pad(b[1:].abs(), (2, 1))
    return 1e-9 * torch.stack([size[:-2], size[1:-1], size[2:]]).amax(0)


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
        return _rounding(self.coefficients) if self.errors is None else self.errors

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
