"""The kernel Stein discrepancy to the uniform distribution on the sphere: the MMD of a reweighted kernel."""

import math

import torch
from torch import Tensor

from mmkernel.kernels.composites import kernels_of
from mmkernel.kernels.fused import kept
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.series import SeriesKernel


def stein(kernel: Kernel | dict) -> 'SteinKernel':
    """``SteinKernel(kernel)``: its MMD^2 to uniform is the squared kernel Stein discrepancy of ``kernel``."""
    return SteinKernel(kernel)


class SteinKernel(SeriesKernel):
    """-1/2 Laplace_u K(u, v) = ((q-1) t phi'(t) - (1-t^2) phi''(t)) / 2, so b_l -> l (l+q-2)/2 b_l. ``kernel``: one or its config.

    Gegenbauer's equation: P_l(u.v) is an eigenfunction of the Laplace-Beltrami operator, Laplace P_l = -l (l+q-2) P_l.
    Brownian motion on the sphere has the generator A = Laplace/2, and E A f = 0 for all f characterises the law that it
    keeps, the uniform one. The largest (E_Q A f)^2 over all f with ||(-A)^{1/2} f|| <= 1 in the space of ``kernel`` is the
    mean of the above over u, v ~ Q: the KSD of Expanding SPHERE-JEPA, arXiv 2606.17603, 2026, is an MMD again, with b_0 = 0.

    Where phi has no slope at t = 1 (powers of the distance below 2), the value there is infinite: use statistic='U'.
    """

    def __init__(self, kernel: Kernel | dict) -> None:
        super().__init__()
        (self.kernel,) = kernels_of([kernel])

    def table(self, q: int) -> tuple[float, ...]:
        return tuple(_rate(q, l) * b for l, b in enumerate(self.kernel.table(q)))

    def phi(self, t: Tensor, q: int) -> Tensor:
        if isinstance(self.kernel, SeriesKernel):
            return super().phi(t, q)
        slope, second = torch.func.jvp(lambda t: self.kernel.dphi(t, q), (t,), (torch.ones_like(t),))
        return ((q - 1) * t * slope - (1 - t * t) * second) / 2

    def dphi(self, t: Tensor, q: int) -> Tensor:
        return super().dphi(t, q) if isinstance(self.kernel, SeriesKernel) else Kernel.dphi(self, t, q)

    def coefficients(self, q: int, order: int) -> Tensor:
        return self._rates(q, order) * self.kernel.coefficients(q, order)

    def coefficient_errors(self, q: int, order: int) -> Tensor:
        return self._rates(q, order) * self.kernel.coefficient_errors(q, order)

    def monomials(self, q: int) -> tuple[float, ...] | None:
        """t^k -> (k (k+q-2) t^k - k (k-1) t^{k-2}) / 2."""
        a = self.kernel.monomials(q)
        if a is None:
            return None
        after = (*a[2:], 0.0, 0.0)
        return tuple(_rate(q, k) * a[k] - (k + 2) * (k + 1) / 2 * after[k] for k in range(len(a)))

    @kept
    def value_at_one(self, q: int) -> float:
        """(q-1)/2 phi'(1); infinite where 1e-8 before t = 1 phi' is much smaller: then a root is capped there."""
        t = torch.tensor([1 - 1e-8, 1.0], dtype=torch.float64)
        near, at = self.kernel.dphi(t, q).tolist()
        return (q - 1) / 2 * at if abs(at) <= 1.5 * abs(near) else math.inf

    @staticmethod
    def _rates(q: int, order: int) -> Tensor:
        return torch.tensor([_rate(q, l) for l in range(order + 1)], dtype=torch.float64)


def _rate(q: int, l: int) -> float:
    """l (l+q-2) / 2."""
    return l * (l + q - 2) / 2
