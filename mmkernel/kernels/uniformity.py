"""What a statistic of uniformity is worth when the points *are* uniform: its null band."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.legendre import check_dimension, expansion
from mmkernel.kernels.panels import Profile


@dataclass(frozen=True)
class NullBand:
    """Mean and standard deviation of ``mmd2_to_uniform`` over N independent uniform points."""

    mean: float
    sd: float

    def score(self, value: float) -> float:
        """(value - mean) / sd: near 0 for uniform points, negative for points more even than chance would have them."""
        return (value - self.mean) / self.sd


def null_band(kernel: Kernel, q: int, count: int, statistic: str = 'U') -> NullBand:
    """U: mean 0, sd^2 = 2/(N(N-1)) sum_{l>=1} b_l^2 / N(q, l);  V: mean sum_{l>=1} b_l / N, sd (N-1)/N that of U.

    N is ``count``. Exact at every N: E[phi(u.v) | u] = b_0 for uniform v, so different pairs are uncorrelated and the
    variance of their mean is Var phi / #pairs; the diagonal of V is a constant. The law itself is a weighted sum of
    chi-squares: close to normal where many harmonics share the variance (large q), skewed to the right at q of a few.

    Raises ValueError for fewer than two points, an unknown statistic, phi(1) infinite under 'V', or a constant phi.
    """
    q = check_dimension(q)
    if int(count) != count or count < 2:
        raise ValueError(f'A null band is that of N >= 2 points, got count = {count}.')
    if statistic not in ('V', 'U'):
        raise ValueError(f"statistic is 'V' (all pairs) or 'U' (i != j), got {statistic!r}.")
    spread = math.sqrt(profile_variance(kernel, q))
    if spread <= 1e-12 * abs(float(kernel.phi(torch.zeros((), dtype=torch.float64), q))):
        raise ValueError(f'{kernel} is constant at q = {q}: every cloud of points has the same energy.')
    sd = spread * math.sqrt(2 / (count * (count - 1)))
    if statistic == 'U':
        return NullBand(0.0, sd)
    excess = kernel.value_at_one(q) - float(kernel.coefficients(q, 0)[0])
    if not math.isfinite(excess):
        raise ValueError(
            f"{kernel} has phi(1) = {kernel.value_at_one(q)}: the 'V' statistic counts each point against itself. "
            "Use statistic='U'."
        )
    return NullBand(excess / count, (count - 1) / count * sd)


def profile_variance(kernel: Kernel, q: int) -> float:
    """Var phi(u.v) = sum_{l>=1} b_l^2 / N(q, l) for u, v independent and uniform on S^{q-1}; by quadrature, all l at once.

    Of the deviation from b_0 rather than of phi^2: at q = 32 768 the two differ in the ninth digit and later.
    ValueError where it is not known to 1e-6.
    """
    phi = kernel.profile(q)

    def mean(f: Profile) -> float:
        try:
            return float(expansion(f, q, 0)[0])
        except ValueError as error:
            raise ValueError(f'The variance of {type(kernel).__name__} is not known: {error}') from None

    b0 = mean(phi)

    def squared_deviation(t: Tensor) -> Tensor:
        deviation = phi(t) - b0
        return torch.where(deviation.abs() > 4e-16 * abs(b0), deviation, 0).square()

    return mean(squared_deviation)
