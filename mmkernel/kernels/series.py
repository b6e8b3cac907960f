"""Kernels of the sphere that are given by their expansion, phi = sum_l b_l P_l(q; .), a finite table of b_l for each width q."""

import torch
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.kernels.composites import horner, strip_zeros
from mmkernel.kernels.fused import kept
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.legendre import monomial_coefficients, num_harmonics
from mmkernel.kernels.radial import at_width, power_of_width

_SAFE_IN_POWERS = 4  # beyond, powers of t lose what the recurrence keeps
_NEGLIGIBLE = 45.0  # e^-45 of the largest term
_MOST_TERMS = 4096


class SeriesKernel(Kernel):
    """phi(t) = sum_{l=0}^{L} b_l P_l(q; t), b = ``table(q)``. A subclass says what the table is."""

    def table(self, q: int) -> tuple[float, ...]:
        """(b_0, ..., b_L) at width q."""
        raise NotImplementedError(f'{type(self).__name__} has no table(q): the b_l that a SeriesKernel is made of.')

    def phi(self, t: Tensor, q: int) -> Tensor:
        powers = self._powers(q)
        return legendre_series(self.table(q), q, t) if powers is None else horner(powers, t)

    def dphi(self, t: Tensor, q: int) -> Tensor:
        powers = self._powers(q)
        if powers is not None:
            return horner([k * a for k, a in enumerate(powers)][1:] or [0.0], t)
        return legendre_series([l * (l + q - 2) / (q - 1) * b for l, b in enumerate(self.table(q))][1:], q + 2, t)

    def coefficients(self, q: int, order: int) -> Tensor:
        known = torch.tensor(self.table(q)[: order + 1], dtype=torch.float64)
        return torch.nn.functional.pad(known, (0, order + 1 - len(known)))

    def monomials(self, q: int) -> tuple[float, ...] | None:
        powers = self._powers(q)
        return None if powers is None else strip_zeros(powers)

    def _powers(self, q: int) -> list[float] | None:
        """phi in powers of t, two operations a degree; None where there are too many."""
        table = self.table(q)
        if len(table) > _SAFE_IN_POWERS + 1:
            return None
        rows = monomial_coefficients(len(table) - 1, q)
        return [sum(b * row[k] for b, row in zip(table, rows, strict=True)) for k in range(len(table))]


class LegendreKernel(SeriesKernel):
    """phi(t) = sum_{l=1}^{L} b_l P_l(q; t), b = ``weights``.

    Zheng et al., Self-supervised learning with rotation-invariant kernels, ICLR 2023; L = 1, 2, 3 there.
    Matches the moments of the embedding to those of the uniform distribution up to order L; b_0 = 0, so the energy is the
    MMD^2 itself. Weights must be >= 0 and not all zero; ``indefinite=True`` admits negative ones on purpose.
    """

    def __init__(self, weights: tuple[float, ...], indefinite: bool = False) -> None:
        super().__init__()
        check_numbers('LegendreKernel', signed=True, several=True, weights=weights)
        self.weights = tuple(float(b) for b in weights)
        if not any(self.weights):
            raise ValueError(f'LegendreKernel weights are all zero, got {self.weights}: such a kernel sees nothing.')
        negative = [f'b_{l} = {b}' for l, b in enumerate(self.weights, start=1) if b < 0]
        if negative and not indefinite:
            raise ValueError(
                f'LegendreKernel with {", ".join(negative)} is not positive definite (Schoenberg: all b_l >= 0): its energy has no '
                'minimum at the uniform distribution. If that is what you want, say indefinite=True.'
            )

    @property
    def order(self) -> int:
        return len(self.weights)

    def table(self, q: int) -> tuple[float, ...]:
        return (0.0, *self.weights)


class BandlimitedKernel(SeriesKernel):
    """phi(t) = sum_{l=1}^{L} N(q, l) P_l(q; t) / sum_{l=1}^{L} N(q, l), L = ``order``; phi(1) = 1.

    Expanding SPHERE-JEPA, arXiv 2606.17603, 2026. All spherical harmonics up to degree L count the same: b_2 : b_1 is about
    q / 2, where ``LegendreKernel`` leaves the weight of a degree to the user. Blind beyond degree L.
    """

    def __init__(self, order: int = 2) -> None:
        super().__init__()
        check_numbers('BandlimitedKernel', whole=True, order=order)
        self.order = int(order)

    @kept
    def table(self, q: int) -> tuple[float, ...]:
        harmonics = [num_harmonics(q, l) for l in range(1, self.order + 1)]
        return (0.0, *(n / sum(harmonics) for n in harmonics))


class HeatKernel(SeriesKernel):
    """phi(t) = sum_l N(q, l) e^{-l (l+q-2) time} P_l(q; t) / sum_l N(q, l) e^{-l (l+q-2) time}; phi(1) = 1, every b_l > 0.

    The heat equation on the sphere after ``time``, over its value at t = 1: e^{220} at q = 32 768 and time 5/q. Expanding
    SPHERE-JEPA, arXiv 2606.17603, 2026. ``time``: a number or a word, '5/q' (b_1 : b_2 : b_3 = 1 : .85 : .46 at q = 256).
    ValueError for a time so small that more than 4096 degrees matter.
    """

    def __init__(self, time: float | str = '5/q') -> None:
        super().__init__()
        self._time, self.time = power_of_width('HeatKernel', time=time), time

    @kept
    def table(self, q: int) -> tuple[float, ...]:
        b = self._logarithms(q, _MOST_TERMS)
        count = int((b > b.max() - _NEGLIGIBLE).nonzero().max()) + 1
        if count > _MOST_TERMS:
            raise ValueError(
                f'HeatKernel: time = {self.time} is too small at q = {q}: more than {_MOST_TERMS} degrees matter. Raise time; '
                f"'5/q' is {5 / q:.3g}."
            )
        return tuple(b[:count].softmax(0).tolist())

    def coefficients(self, q: int, order: int) -> Tensor:
        """Those beyond the table too, however small."""
        b = self._logarithms(q, max(order, len(self.table(q))))
        return b.softmax(0)[: order + 1]

    def _logarithms(self, q: int, order: int) -> Tensor:
        """(order + 1,): log N(q, l) - l (l+q-2) time, with N(q, l+1)/N(q, l) = (2l+q)(l+q-2) / ((2l+q-2)(l+1))."""
        l = torch.arange(order + 1, dtype=torch.float64)
        ratio = (2 * l[1:] + q - 2) * (l[1:] + q - 3) / ((2 * l[1:] + q - 4) * l[1:])
        ratio[0] = q  # at q = 2: 0/0
        log_harmonics = torch.nn.functional.pad(ratio.log().cumsum(0), (1, 0))
        return log_harmonics - l * (l + q - 2) * at_width(self._time, q)


def legendre_series(b: tuple[float, ...] | list[float], q: int, t: Tensor) -> Tensor:
    """sum_l b_l P_l(q; t) by Clenshaw's recurrence, y_l = b_l + (2l+q-2)/(l+q-2) t y_{l+1} - (l+1)/(l+q-1) y_{l+2}."""
    if len(b) == 1:
        return torch.full_like(t, b[0])
    y, after = torch.full_like(t, b[-1]), None
    for l in range(len(b) - 2, -1, -1):
        rise = 1.0 if l == 0 else (2 * l + q - 2) / (l + q - 2)
        lower = t * y * rise + b[l]
        y, after = lower if after is None else lower - after * ((l + 1) / (l + q - 1)), y
    return y
