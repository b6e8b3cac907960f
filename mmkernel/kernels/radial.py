"""Radial kernels of R^q, K(u, v) = f(||u - v||^2), their restriction to a sphere, and what they are against N(0, I)."""

import copy
import math
import re
from typing import Any

import torch
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.kernels.fused import kept
from mmkernel.kernels.kernel import Kernel

WIDTH_WORD = re.compile(
    r'(?:(?P<times>[\d.eE+-]+)\s*\*\s*)?(?P<up>q|sqrt\(q\))|(?P<over>[\d.eE+-]+)\s*/\s*(?P<down>q|sqrt\(q\))'
)
_LARGEST_EXPONENT = 4e4  # of a Gaussian whose expansion is summed term by term


def power_of_width(owner: str, **given: float | str) -> tuple[float, float]:
    """(c, p) of the one keyword, a number c > 0 or a word for c q^p: 'q', '2*q', '1/q', 'sqrt(q)', '1/sqrt(q)'.

    ValueError for another word or a number that is not positive and finite.
    """
    ((name, value),) = given.items()
    if not isinstance(value, str):
        check_numbers(owner, **given)
        return float(value), 0.0
    match = WIDTH_WORD.fullmatch(value.strip())
    try:
        factor = float((match and (match['times'] or match['over'])) or 1)
    except ValueError:
        match = None
    if match is None or not 0 < factor < math.inf:
        raise ValueError(
            f"{owner}.{name}={value!r}; expected a number > 0, or a multiple of the width such as 'q', '1/q', 'sqrt(q)', '0.5*q'."
        )
    power = 0.5 if 'sqrt' in value else 1.0
    return factor, power if match['up'] else -power


def at_width(power: tuple[float, float], q: int) -> float:
    """c q^p."""
    return power[0] * q ** power[1]


class RadialKernel(Kernel):
    """K(u, v) = f(r^2), r = ||u - v||. On the sphere of ``radius`` R it is the rotation-invariant phi(t) = f(2 R^2 (1 - t)).

    Schoenberg (1938): K is positive definite in every dimension iff f is a mixture of Gaussians, int e^{-s r^2} dw(s), w >= 0.

    A radial kernel of your own is a subclass with one method, ``f``; with ``mixture`` it also has the expectations
    against N(0, I), and its expansion on the sphere keeps its digits at every degree. A radius, and other scales, are
    numbers or words for a multiple of the width: 'sqrt(q)', '1/q'.
    """

    def __init__(self, radius: float | str = 1.0) -> None:
        super().__init__()
        self._radius, self.radius = power_of_width(type(self).__name__, radius=radius), radius

    def f(self, r2: Tensor, q: int) -> Tensor:
        """f(r^2) for r^2 >= 0, elementwise, in any floating type."""
        raise NotImplementedError(
            f'{type(self).__name__} has no f(r2, q): the one method that a radial kernel must define.'
        )

    def df(self, r2: Tensor, q: int) -> Tensor:
        """f'(r^2), the slope in the squared distance, finite at 0; in forward mode unless a subclass knows better."""
        return torch.func.jvp(lambda r2: self.f(r2, q), (r2,), (torch.ones_like(r2),))[1]

    def mixture(self, q: int) -> tuple[Tensor, Tensor] | None:
        """(s, w), (n,) float64 each, with f(r^2) = sum_k w_k e^{-s_k r^2}; None where that is not known."""
        return None

    def restrict(self, radius: float | str) -> 'RadialKernel':
        """The same kernel on the sphere of another radius; 'sqrt(q)' is where N(0, I) lies."""
        twin = copy.deepcopy(self)
        twin._radius, twin.radius = power_of_width(type(self).__name__, radius=radius), radius
        return twin

    def phi(self, t: Tensor, q: int) -> Tensor:
        return self.f((1 - t) * self._scale(q), q)

    def dphi(self, t: Tensor, q: int) -> Tensor:
        return -self._scale(q) * self.df((1 - t) * self._scale(q), q)

    def coefficients(self, q: int, order: int) -> Tensor:
        """sum_k w_k b_l(e^{-s_k r^2}): terms of one sign where w >= 0, so no digit is lost; else by quadrature."""
        if not self._by_mixture(q):
            return super().coefficients(q, order)
        s, w = self.mixture(q)
        kappa = s * self._scale(q)
        near = kappa <= _LARGEST_EXPONENT  # of a sharper one nothing is left where a larger q puts points
        return w[near] @ gaussian_coefficients(kappa[near], q, order)

    def has_closed_form(self, q: int) -> bool:
        return type(self).coefficients is not RadialKernel.coefficients or self._by_mixture(q)

    def _by_mixture(self, q: int) -> bool:
        found = self.mixture(q)
        return found is not None and (q >= 24 or float(found[0].max()) * self._scale(q) <= _LARGEST_EXPONENT)

    def target(self, rho: Tensor, q: int) -> Tensor:
        """E K(u, Z), Z ~ N(0, I_q), at rho = ||u||^2: sum_k w_k (1 + 2 s_k)^{-q/2} e^{-s_k rho / (1 + 2 s_k)}."""
        rates, weights = self._against_normal(q, rho.dtype, rho.device)
        return ((rho[..., None] * -rates).exp() * weights).sum(-1)

    @kept
    def target_constant(self, q: int) -> float:
        """E K(Z, Z'): sum_k w_k (1 + 4 s_k)^{-q/2}."""
        s, w = self._known_mixture(q)
        return float((w * (-q / 2 * torch.log1p(4 * s)).exp()).sum())

    @kept
    def value_at_zero(self, q: int) -> float:
        """f(0) = K(u, u)."""
        return float(self.f(torch.zeros((), dtype=torch.float64), q))

    def in_space(self, g: Tensor, rho: Tensor, rho_: Tensor, q: int) -> tuple[Tensor, Tensor, Tensor]:
        """K(u, v), dK/dg and dK/drho for g = u.v, rho = ||u||^2, rho_ = ||v||^2, which broadcast.

        Rows nearer than rounding tells are one point: their distance is 0 and they do not push each other.
        """
        size = rho + rho_
        r2 = size - 2 * g
        same = r2 <= 4 * torch.finfo(g.dtype).eps * size
        r2 = r2.masked_fill(same, 0)
        slope = self.df(r2, q).masked_fill(same, 0)
        return self.f(r2, q), -2 * slope, slope

    def extra_repr(self) -> str:
        return super().extra_repr().removesuffix('radius=1.0').removesuffix(', ')

    def _scale(self, q: int) -> float:
        """2 R^2."""
        return 2 * at_width(self._radius, q) ** 2

    @kept
    def _against_normal(self, q: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(2, n): the rates and weights of ``target``, made once: a copy to the device would wait for it."""
        s, w = self._known_mixture(q)
        with torch.inference_mode(False):
            return torch.stack([s / (1 + 2 * s), w * (-q / 2 * torch.log1p(2 * s)).exp()]).to(device, dtype)

    def _known_mixture(self, q: int) -> tuple[Tensor, Tensor]:
        found = self.mixture(q)
        if found is None:
            raise ValueError(
                f'{type(self).__name__} does not know E K(u, Z) for Z ~ N(0, I): give it mixture(q), or target(rho, q) and '
                'target_constant(q). On the sphere it needs neither.'
            )
        return found


def gaussian_coefficients(kappa: Tensor, q: int, order: int) -> Tensor:
    """(n, order + 1): b_l of e^{-kappa (1 - t)} for each of (n,) kappa, float64.

    b_l = e^-kappa kappa^l/l! prod_{j=1}^{l-1} (2 nu+j)/(2(nu+j)) 0F1(; l+nu+1; kappa^2/4), nu = q/2-1. The textbook form
    e^-kappa Gamma(nu) (2/kappa)^nu (l+nu) I_{l+nu}(kappa) underflows from q of about 1000 on.
    """
    if len(kappa) > 16:  # a sharper Gaussian has a longer series: those of a size together
        sizes, order_of = kappa.sort()
        found = torch.cat([gaussian_coefficients(part, q, order) for part in sizes.split(16)])
        return torch.empty_like(found).index_copy_(0, order_of, found)
    nu, kappa = q / 2 - 1, kappa[:, None]
    k = torch.arange(1, int(kappa.max()) + 200, dtype=torch.float64)
    b = []
    for l in range(order + 1):
        terms = ((kappa.square() / 4).log() - (k * (l + nu + k)).log()).cumsum(1)
        series = torch.logsumexp(torch.nn.functional.pad(terms, (1, 0)), 1)
        ratio = sum(math.log((2 * nu + j) / (2 * (nu + j))) for j in range(1, l))
        b.append((l * kappa[:, 0].log() - kappa[:, 0] - math.lgamma(l + 1) + ratio + series).exp())
    return torch.stack(b, 1)


def radial_parts(kernel: Kernel) -> list[Any]:
    """The kernels that ``kernel`` is made of, if all are radial; else []."""
    parts = [part for part in kernel.modules() if isinstance(part, Kernel) and not list(part.children())]
    return parts if all(isinstance(part, RadialKernel) for part in parts) else []
