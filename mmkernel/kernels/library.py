"""Kernels of the inner product, K(u, v) = phi(u.v), on the sphere and, where they are polynomials, in all of R^q."""

import math

import torch
from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.legendre import legendre_polynomial, num_harmonics
from mmkernel.kernels.panels import log_density, log_gamma_ratio

_SMALLEST_SINE = 1e-8  # the slope of an angle is infinite at t = 1 and -1


class PolynomialKernel(Kernel):
    """phi(t) = (t + constant)^degree, constant >= 0.

    degree = 2, constant = 0: the sample-contrastive reading of covariance regularisers (Garrido et al., ICLR 2023). In R^q,
    K(u, v) = (u.v + constant)^degree: against N(0, I) it compares moments up to that degree; its MMD^2 for (u.v)^2 is
    ||C - I||^2 with C the second moment, so spectral contrastive learning (HaoChen et al., NeurIPS 2021) is alignment and this.
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

    def target(self, rho: Tensor, q: int) -> Tensor:
        """E K(u, Z), Z ~ N(0, I_q), at rho = ||u||^2: sum_k binom(d, k) c^{d-k} (k-1)!! rho^{k/2} over even k."""
        return sum(a * rho ** (k // 2) for k, a in self._even_moments())

    def target_constant(self, q: int) -> float:
        """E K(Z, Z'): as ``target`` with E rho^m = q (q+2) ... (q+2m-2)."""
        return sum(a * math.prod(range(q, q + k, 2)) for k, a in self._even_moments())

    def in_space(self, g: Tensor, rho: Tensor, rho_: Tensor, q: int) -> tuple[Tensor, Tensor, Tensor]:
        """K(u, v), dK/dg and dK/drho for g = u.v, rho = ||u||^2, rho_ = ||v||^2, which broadcast."""
        return self.phi(g, q), self.dphi(g, q), torch.zeros_like(g)

    def _even_moments(self) -> list[tuple[int, float]]:
        """(k, binom(d, k) c^{d-k} (k-1)!!) for even k."""
        return [(k, a * math.prod(range(1, k, 2))) for k, a in enumerate(self.monomials(1)) if k % 2 == 0]


class ArcCosineKernel(Kernel):
    """kappa_n(t), n = ``order``: with theta = arccos t, kappa_0 = 1 - theta/pi, kappa_1 = (sin theta + (pi-theta) t) / pi,
    kappa_2 = (3 t sin theta + (pi-theta) (1 + 2 t^2)) / pi.

    Cho & Saul, Kernel methods for deep learning, NeurIPS 2009: 2 E (a.u)_+^n (a.v)_+^n for a ~ N(0, I), the kernel of an
    infinitely wide layer of steps (n = 0), ReLUs (1) or squared ReLUs (2). Positive definite, but blind to every degree l > n
    with l - n even.
    """

    def __init__(self, order: int = 1) -> None:
        super().__init__()
        check_words('ArcCosineKernel', order=(order, (0, 1, 2)))
        self.order = int(order)

    def phi(self, t: Tensor, q: int) -> Tensor:
        return _arc_cosine(self.order, t)

    def dphi(self, t: Tensor, q: int) -> Tensor:
        """kappa_n' = n^2 kappa_{n-1}, kappa_0' = 1 / (pi sin theta)."""
        if self.order == 0:
            return 1 / (math.pi * (1 - t * t).clamp_min(_SMALLEST_SINE**2).sqrt())
        return self.order**2 * _arc_cosine(self.order - 1, t)

    def coefficients(self, q: int, order: int) -> Tensor:
        """b_0 = prod_{j<n} (q+2j) (E|t|^n)^2 / 2, and b_l(kappa_n; q) = n^2 (q-1) / (l (l+q-2)) b_{l-1}(kappa_{n-1}; q+2).

        For the step, b_l(kappa_0; q) = 2 N(q, l) (w_{q+2}(0) P_{l-1}(q+2; 0) / q)^2, w being the density of t (Rodrigues).
        """
        return torch.tensor([_arc_cosine_coefficient(self.order, q, l) for l in range(order + 1)], dtype=torch.float64)


def _arc_cosine(order: int, t: Tensor) -> Tensor:
    """kappa_n, exact at t = 1 and -1; its slope there takes that of an angle and of a sine, which are infinite, for 0."""
    t = t.clamp(-1, 1)
    square = (1 - t) * (1 + t)
    sine = square.clamp_min(_SMALLEST_SINE**2).sqrt().masked_fill(square < _SMALLEST_SINE**2, 0)
    rest = math.pi - torch.atan2(sine, t)
    if order == 0:
        return rest / math.pi
    return (sine + rest * t if order == 1 else 3 * t * sine + rest * (1 + 2 * t * t)) / math.pi


def _arc_cosine_coefficient(n: int, q: int, l: int) -> float:
    if l == 0:  # E|t| = Gamma(q/2) / (sqrt(pi) Gamma((q+1)/2)), E t^2 = 1/q
        mean = (1.0, math.exp(-log_gamma_ratio(q / 2, 0.5)) / math.sqrt(math.pi), 1 / q)[n]
        return math.prod(q + 2 * j for j in range(n)) * mean**2 / 2
    if n:
        return n**2 * (q - 1) / (l * (l + q - 2)) * _arc_cosine_coefficient(n - 1, q + 2, l - 1)
    zero = torch.zeros((), dtype=torch.float64)
    half = float(log_density(zero, q + 2, 0).exp() * legendre_polynomial(l - 1, q + 2, zero)) / q
    return 2 * num_harmonics(q, l) * half**2
