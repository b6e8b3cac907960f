"""The kernels of the literature. Each class: the formula of phi, its slope, and b_l in closed form where there is one."""

import math

import torch
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.kernels.composites import horner, strip_zeros
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.legendre import legendre_derivative, legendre_polynomials, monomial_coefficients, num_harmonics
from mmkernel.kernels.panels import log_gamma_ratio

# The distance has an infinite slope at t = 1; closer than this, two points count as one (||u-v||^2 = 2-2t).
_SMALLEST_SQUARED_DISTANCE = 1e-12


class LegendreKernel(Kernel):
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

    def phi(self, t: Tensor, q: int) -> Tensor:
        if self.order <= 4:
            return horner(self._monomials(q), t)
        polynomials = legendre_polynomials(self.order, q, t)
        return sum(b * p for b, p in zip(self.weights, polynomials[1:], strict=True))

    def dphi(self, t: Tensor, q: int) -> Tensor:
        if self.order <= 4:
            return horner([k * a for k, a in enumerate(self._monomials(q))][1:], t)
        return sum(b * legendre_derivative(l, q, t) for l, b in enumerate(self.weights, start=1))

    def coefficients(self, q: int, order: int) -> Tensor:
        b = torch.zeros(order + 1, dtype=torch.float64)
        known = self.weights[:order]
        b[1 : len(known) + 1] = torch.tensor(known, dtype=torch.float64)
        return b

    def monomials(self, q: int) -> tuple[float, ...] | None:
        return strip_zeros(self._monomials(q)) if self.order <= 4 else None

    def _monomials(self, q: int) -> list[float]:
        """phi in powers of t: two operations a degree. Safe up to degree 4; beyond, powers lose what the recurrence keeps."""
        rows = monomial_coefficients(self.order, q)[1:]
        return [sum(b * row[k] for b, row in zip(self.weights, rows, strict=True)) for k in range(self.order + 1)]


class RBFKernel(Kernel):
    """phi(t) = exp(-scale ||u-v||^2) = exp(-2 scale (1-t)); every b_l > 0.

    With the logarithm of its U-statistic: the uniformity of Wang & Isola, ICML 2020 (their t is ``scale``).
    """

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__()
        check_numbers('RBFKernel', scale=scale)
        self.scale = float(scale)

    def phi(self, t: Tensor, q: int) -> Tensor:
        return (2 * self.scale * (t - 1)).exp()

    def dphi(self, t: Tensor, q: int) -> Tensor:
        return 2 * self.scale * self.phi(t, q)

    def coefficients(self, q: int, order: int) -> Tensor:
        """b_l = e^-kappa kappa^l/l! prod_{j=1}^{l-1} (2 nu+j)/(2(nu+j)) 0F1(; l+nu+1; kappa^2/4), kappa = 2 scale, nu = q/2-1.

        The textbook form e^-kappa Gamma(nu) (2/kappa)^nu (l+nu) I_{l+nu}(kappa) underflows from q of about 1000 on.
        """
        kappa, nu = 2 * self.scale, q / 2 - 1
        k = torch.arange(1, int(kappa) + 200, dtype=torch.float64)
        b = []
        for l in range(order + 1):
            terms = (math.log(kappa * kappa / 4) - (k * (l + nu + k)).log()).cumsum(0)
            series = torch.logsumexp(torch.cat([terms.new_zeros(1), terms]), 0)
            ratio = sum(math.log((2 * nu + j) / (2 * (nu + j))) for j in range(1, l))
            b.append(float((l * math.log(kappa) - kappa - math.lgamma(l + 1) + ratio + series).exp()))
        return torch.tensor(b, dtype=torch.float64)


class RieszKernel(Kernel):
    """phi(t) = constant - ||u-v||^exponent = constant - (2-2t)^(exponent/2), 0 < exponent <= 2.

    The generalised distance kernel: minimising its energy spreads points by their mean distance. ``constant`` defaults to
    2**exponent (phi >= 0) and moves b_0 only. exponent = 2 is linear: it centres the embedding and no more.
    """

    def __init__(self, exponent: float = 1.0, constant: float | None = None) -> None:
        super().__init__()
        if constant is not None:
            check_numbers('RieszKernel', signed=True, constant=constant)
        if not 0 < exponent <= 2:
            raise ValueError(f'RieszKernel is positive definite for 0 < exponent <= 2, got exponent = {exponent}.')
        self.exponent = float(exponent)
        self.constant = 2.0**self.exponent if constant is None else float(constant)

    def phi(self, t: Tensor, q: int) -> Tensor:
        return self.constant - (2 - 2 * t).clamp_min(0).pow(self.exponent / 2)

    def dphi(self, t: Tensor, q: int) -> Tensor:
        return self.exponent * (2 - 2 * t).clamp_min(_SMALLEST_SQUARED_DISTANCE).pow(self.exponent / 2 - 1)

    def monomials(self, q: int) -> tuple[float, ...] | None:
        return (self.constant - 2, 2.0) if self.exponent == 2 else None

    def coefficients(self, q: int, order: int) -> Tensor:
        """b_l = -4^b (-b)_l N(q, l) Gamma(b+(q-1)/2) Gamma(q-1) / (Gamma((q-1)/2) Gamma(b+l+q-1)), b = exponent/2."""
        beta = self.exponent / 2
        mean = math.exp(beta * math.log(4) + log_gamma_ratio((q - 1) / 2, beta) - log_gamma_ratio(q - 1, beta))
        b, rising = [self.constant - mean], 1.0
        for l in range(1, order + 1):
            rising *= (l - 1 - beta) / (beta + q - 2 + l)
            b.append(-mean * rising * num_harmonics(q, l))
        return torch.tensor(b, dtype=torch.float64)


class LaplaceKernel(Kernel):
    """phi(t) = exp(-scale ||u-v||) = exp(-scale sqrt(2-2t)); every b_l > 0, with a heavier tail than the RBF kernel's."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        check_numbers('LaplaceKernel', scale=scale)
        self.scale = float(scale)

    def phi(self, t: Tensor, q: int) -> Tensor:
        return (-self.scale * (2 - 2 * t).clamp_min(0).sqrt()).exp()

    def dphi(self, t: Tensor, q: int) -> Tensor:
        distance = (2 - 2 * t).clamp_min(_SMALLEST_SQUARED_DISTANCE).sqrt()
        return self.scale * (-self.scale * distance).exp() / distance

    def coefficients(self, q: int, order: int) -> Tensor:
        """b_l = int_0^inf s/(2 sqrt(pi)) u^{-3/2} e^{-s^2/4u} b_l(RBF of scale u) du: e^{-s r} is a mixture of e^{-u r^2}.

        All terms are positive, so no digit is lost at any degree. By the trapezoidal rule in log u; q of a few go by
        quadrature, where the mixture has a long tail and b_l needs no high derivative.
        """
        if q < 24:
            return super().coefficients(q, order)
        s = self.scale
        log_u = torch.linspace(math.log(s * s / 2800), math.log(40 * (order + 10)), 401, dtype=torch.float64)
        weight = (math.log(s / (2 * math.sqrt(math.pi))) - log_u / 2 - s * s / (4 * log_u.exp())).exp()
        mixed = torch.stack([RBFKernel(u).coefficients(q, order) for u in log_u.exp().tolist()])
        return (log_u[1] - log_u[0]) * (weight @ mixed)


class PolynomialKernel(Kernel):
    """phi(t) = (t + constant)^degree, constant >= 0.

    degree = 2, constant = 0: the sample-contrastive reading of covariance regularisers (Garrido et al., ICLR 2023).
    """

    def __init__(self, degree: int = 2, constant: float = 0.0) -> None:
        super().__init__()
        check_numbers('PolynomialKernel', whole=True, degree=degree)
        check_numbers('PolynomialKernel', zero=True, constant=constant)  # below 0 it is not positive definite
        self.degree, self.constant = int(degree), float(constant)

    def phi(self, t: Tensor, q: int) -> Tensor:
        return (t + self.constant) ** self.degree

    def dphi(self, t: Tensor, q: int) -> Tensor:
        return self.degree * (t + self.constant) ** (self.degree - 1)

    def monomials(self, q: int) -> tuple[float, ...] | None:
        d, c = self.degree, self.constant
        return tuple(math.comb(d, k) * c ** (d - k) for k in range(d + 1))

    def coefficients(self, q: int, order: int) -> Tensor:
        """t^k has b_l = N(q, l) k!/(k-l)! E_{q+2l}[t^{k-l}] / (q (q+2) ... (q+2l-2)); binomially summed over k."""
        b = torch.zeros(order + 1, dtype=torch.float64)
        for k, weight in enumerate(self.monomials(q)):
            for l in range(min(k, order) + 1):
                if weight and (k - l) % 2 == 0:
                    moment = math.prod((2 * i - 1) / (q + 2 * l + 2 * i - 2) for i in range(1, (k - l) // 2 + 1))
                    harmonics = num_harmonics(q, l) / math.prod(range(q, q + 2 * l, 2))
                    b[l] += weight * math.perm(k, l) * moment * harmonics
        return b
