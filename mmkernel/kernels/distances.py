"""Radial kernels with heavier tails than a Gaussian: inverse multiquadric, powers of the distance, exponential."""

import math

import torch
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.kernels.fused import kept
from mmkernel.kernels.legendre import num_harmonics
from mmkernel.kernels.nodes import beta_nodes, gamma_nodes
from mmkernel.kernels.panels import log_gamma_ratio
from mmkernel.kernels.radial import RadialKernel, at_width, power_of_width

# The distance has an infinite slope at 0; closer than this, two points count as one.
_SMALLEST_SQUARED_DISTANCE = 1e-12


class InverseMultiquadricKernel(RadialKernel):
    """K(u, v) = (1 + ||u-v||^2 / c)^(-exponent).

    KerJEPA, arXiv 2512.19605, 2025. On the unit sphere with c = 1, and on that of radius sqrt(q) with c = 'q', it is
    (3 - 2t)^(-1/2). With c = 'q' it is the limit of ``EppsPulleyKernel`` over sqrt(2 pi) as q grows. Heavy tails: far points are
    still felt. ``c``: a number or a word.
    """

    def __init__(self, c: float | str = 1.0, exponent: float = 0.5, radius: float | str = 1.0) -> None:
        super().__init__(radius)
        check_numbers('InverseMultiquadricKernel', exponent=exponent)
        self._power, self.c, self.exponent = power_of_width('InverseMultiquadricKernel', c=c), c, float(exponent)

    def f(self, r2: Tensor, q: int) -> Tensor:
        return (1 + r2 / at_width(self._power, q)).pow(-self.exponent)

    def df(self, r2: Tensor, q: int) -> Tensor:
        c = at_width(self._power, q)
        return (-self.exponent / c) * (1 + r2 / c).pow(-self.exponent - 1)

    def mixture(self, q: int) -> tuple[Tensor, Tensor]:
        """(1 + x)^-a = E e^{-x s}, s ~ Gamma(a)."""
        c = at_width(self._power, q)
        s, w = gamma_nodes(self.exponent, typical=1 / (1 + q / c))
        return s / c, w


class RieszKernel(RadialKernel):
    """K(u, v) = constant - ||u-v||^exponent, 0 < exponent <= 2; on the unit sphere constant - (2-2t)^(exponent/2).

    The generalised distance kernel: minimising its energy spreads points by their mean distance. ``constant`` defaults to
    2**exponent (phi >= 0 on the unit sphere) and moves b_0 only; no MMD^2 depends on it. exponent = 2 is linear: it centres
    the embedding and no more. With exponent = 1 the MMD^2 is the energy distance of Szekely & Rizzo, 2013.
    """

    def __init__(self, exponent: float = 1.0, constant: float | None = None, radius: float | str = 1.0) -> None:
        super().__init__(radius)
        if constant is not None:
            check_numbers('RieszKernel', signed=True, constant=constant)
        if not 0 < exponent <= 2:
            raise ValueError(f'RieszKernel is positive definite for 0 < exponent <= 2, got exponent = {exponent}.')
        self.exponent = float(exponent)
        self.constant = 2.0**self.exponent if constant is None else float(constant)

    def f(self, r2: Tensor, q: int) -> Tensor:
        return self.constant - r2.clamp_min(0).pow(self.exponent / 2)

    def df(self, r2: Tensor, q: int) -> Tensor:
        return (-self.exponent / 2) * r2.clamp_min(_SMALLEST_SQUARED_DISTANCE).pow(self.exponent / 2 - 1)

    def monomials(self, q: int) -> tuple[float, ...] | None:
        return (self.constant - self._scale(q), self._scale(q)) if self.exponent == 2 else None

    def coefficients(self, q: int, order: int) -> Tensor:
        """b_l = -(2R)^{2b} (-b)_l N(q, l) Gamma(b+(q-1)/2) Gamma(q-1) / (Gamma((q-1)/2) Gamma(b+l+q-1)), b = exponent/2."""
        beta = self.exponent / 2
        mean = math.exp(
            beta * math.log(2 * self._scale(q)) + log_gamma_ratio((q - 1) / 2, beta) - log_gamma_ratio(q - 1, beta)
        )
        b, rising = [self.constant - mean], 1.0
        for l in range(1, order + 1):
            rising *= (l - 1 - beta) / (beta + q - 2 + l)
            b.append(-mean * rising * num_harmonics(q, l))
        return torch.tensor(b, dtype=torch.float64)

    def target(self, rho: Tensor, q: int) -> Tensor:
        """constant - E||Z||^e M(-e/2, q/2, -rho/2), e = exponent.

        M(-b, q/2, -x) = M(1-b, q/2, -x) + 2x/q M(1-b, q/2+1, -x): two mixtures of Gaussians without a cancellation.
        """
        if self.exponent == 2:
            return self.constant - q - rho
        rates, first, second = self._against_normal(q, rho.dtype, rho.device)
        gaussians = (rho[..., None] * -rates).exp()
        (n,) = rates.shape
        both = (gaussians * first)[..., : n // 2].sum(-1) + rho * (gaussians * second)[..., n // 2 :].sum(-1)
        return self.constant - both

    @kept
    def _against_normal(self, q: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        a = 1 - self.exponent / 2
        (s, w), (s_, w_) = beta_nodes(a, q / 2 - a, 96), beta_nodes(a, q / 2 + 1 - a, 96)
        size = self._mean_of_norm(q)
        with torch.inference_mode(False):
            first, second = torch.cat([w, 0 * w]) * size, torch.cat([0 * w, w_]) * (size / q)
            return torch.stack([torch.cat([s, s_]) / 2, first, second]).to(device, dtype)

    @kept
    def target_constant(self, q: int) -> float:
        """constant - 2^{e/2} E||Z||^e."""
        return self.constant - 2 ** (self.exponent / 2) * self._mean_of_norm(q)

    def _mean_of_norm(self, q: int) -> float:
        """E||Z||^e = 2^{e/2} Gamma((q+e)/2) / Gamma(q/2)."""
        return math.exp(self.exponent / 2 * math.log(2) + log_gamma_ratio(q / 2, self.exponent / 2))


class LaplaceKernel(RadialKernel):
    """K(u, v) = exp(-scale ||u-v||); on the unit sphere exp(-scale sqrt(2-2t)), every b_l > 0, with a heavier tail than RBF's.

    ``scale``: a number or a word, '1/sqrt(q)' where r^2 is of the size of q.
    """

    def __init__(self, scale: float | str = 1.0, radius: float | str = 1.0) -> None:
        super().__init__(radius)
        self._power = power_of_width('LaplaceKernel', scale=scale)
        self.scale = scale if isinstance(scale, str) else float(scale)

    def f(self, r2: Tensor, q: int) -> Tensor:
        return (-at_width(self._power, q) * r2.clamp_min(0).sqrt()).exp()

    def df(self, r2: Tensor, q: int) -> Tensor:
        distance, scale = r2.clamp_min(_SMALLEST_SQUARED_DISTANCE).sqrt(), at_width(self._power, q)
        return (-scale / 2) * (-scale * distance).exp() / distance

    def mixture(self, q: int) -> tuple[Tensor, Tensor]:
        """e^{-s r} = int_0^inf s/(2 sqrt(pi)) u^{-3/2} e^{-s^2/4u} e^{-u r^2} du; by the trapezoidal rule in log u."""
        s = at_width(self._power, q)
        log_u = torch.linspace(math.log(s * s / 2800), math.log(s * s) + 44, 501, dtype=torch.float64)
        weight = (math.log(s / (2 * math.sqrt(math.pi))) - log_u / 2 - s * s / (4 * log_u.exp())).exp()
        return log_u.exp(), weight * (log_u[1] - log_u[0])
