"""A kernel under the magnifying glass: profile, expansion, null band, gradient; and Legendre kernels that mimic it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.kernels.energy import NullBand, null_band
from mmkernel.kernels.kernel import Kernel, PositiveDefiniteness
from mmkernel.kernels.legendre import (
    adapted_quadrature,
    check_dimension,
    gauss_gegenbauer,
    legendre_derivative,
    legendre_polynomials,
)
from mmkernel.kernels.normal import null_band_to_normal
from mmkernel.kernels.series import LegendreKernel

WEIGHTINGS = ('typical', 'flat')
ROUNDING = 1e-12  # of rms phi: a weight below is 0


class NoMimicError(ValueError):
    """Every weight of the nearest LegendreKernel is 0, as for an even kernel and order 1."""


@dataclass(frozen=True)
class KernelProfile:
    """What ``kernel_profile`` found; ``phi``, ``slope`` and ``density`` are tables over ``t``."""

    q: int
    count: int  # N
    t: Tensor  # (n,) in [-1, 1], denser where independent uniform points lie
    phi: Tensor  # (n,)
    slope: Tensor  # (n,) phi'(t)
    density: Tensor  # (n,) of u.v for independent uniform u, v, relative to its largest value
    definiteness: PositiveDefiniteness  # holds b_0 .. b_order
    band_u: NullBand  # of the unbiased MMD^2 of N uniform points
    band_v: NullBand | None  # of the biased one; None where phi(1) is infinite
    normal_u: NullBand | None  # of the unbiased MMD^2 of N rows of N(0, I) to N(0, I); None where the kernel has none
    normal_v: NullBand | None  # of the biased one
    typical: dict[str, tuple[float, float, float]]  # words -> (t, phi(t), phi'(t))
    point: float  # phi(1) - b_0 = sum_{l>=1} b_l: MMD^2 to uniform of a single point

    @property
    def coefficients(self) -> Tensor:
        """(b_0, ..., b_order)."""
        return self.definiteness.coefficients

    @property
    def degree_gradients(self) -> list[float]:
        """sqrt(E (b_l P_l'(t))^2) over independent uniform points, l = 1 .. order: who pulls while all is well."""
        return [abs(float(b)) * slope_size(self.q, l) for l, b in enumerate(self.coefficients) if l >= 1]


def kernel_profile(kernel: Kernel, q: int, count: int = 256, order: int = 8, points: int = 401) -> KernelProfile:
    """Everything that one wants to know of ``kernel`` at width ``q`` and ``count`` points before training with it."""
    q = check_dimension(q)
    check_numbers('kernel_profile', whole=True, order=order)
    t = _grid(q, points)
    sigma = 1 / math.sqrt(q)  # the standard deviation of u.v
    places = {
        'opposite': -1.0, 'typical, -1/sqrt(q)': -sigma, 'orthogonal': 0.0, 'typical, 1/sqrt(q)': sigma,
        'two views, 0.9': 0.9, 'the same point': 1.0,
    }  # fmt: skip
    at = torch.tensor(list(places.values()), dtype=torch.float64)
    rows = zip(places, at.tolist(), kernel.phi(at, q).tolist(), kernel.dphi(at, q).tolist(), strict=True)
    definiteness = kernel.positive_definiteness(q, order)
    at_one = kernel.value_at_one(q)
    return KernelProfile(
        q=q,
        count=count,
        t=t,
        phi=kernel.phi(t, q),
        slope=kernel.dphi(t, q),
        density=(1 - t.square()).clamp_min(0).pow((q - 3) / 2) if q > 2 else torch.ones_like(t),
        definiteness=definiteness,
        band_u=null_band(kernel, q, count, 'U'),
        band_v=null_band(kernel, q, count, 'V') if math.isfinite(at_one) else None,
        normal_u=_normal_band(kernel, q, count, 'U'),
        normal_v=_normal_band(kernel, q, count, 'V'),
        typical={name: tuple(values) for name, *values in rows},
        point=at_one - definiteness.constant,
    )


def _normal_band(kernel: Kernel, q: int, count: int, statistic: str) -> NullBand | None:
    try:
        return null_band_to_normal(kernel, q, count, statistic)
    except ValueError:  # a kernel of the sphere, or one whose expectations are not known
        return None


def _grid(q: int, points: int) -> Tensor:
    """cos of equal angles, and as many points within five standard deviations of 0: at q = 8192 these are 5 % of [-1, 1]."""
    wide = torch.linspace(torch.pi, 0, points, dtype=torch.float64).cos()
    reach = min(5 / math.sqrt(q), 1.0)
    near = torch.linspace(-reach, reach, points, dtype=torch.float64)
    return torch.cat([wide, near]).clamp(-1, 1).unique()


def slope_size(q: int, l: int) -> float:
    """sqrt(E P_l'(u.v)^2) for independent uniform u, v."""
    t, w = gauss_gegenbauer(q)
    return math.sqrt(float((w * legendre_derivative(l, q, t).square()).sum()))


@dataclass(frozen=True)
class Mimic:
    """A LegendreKernel in another kernel's place."""

    weights: tuple[float, ...]
    constant: float  # what was taken off phi: it has no gradient
    residual: float  # sqrt(E (phi - c - sum b_l P_l)^2 / Var phi) under the density named by ``weighting``
    slope_residual: float  # the same of the slopes, relative to E phi'^2
    weighting: str

    @property
    def kernel(self) -> LegendreKernel:
        return LegendreKernel(self.weights)


def mimic(kernel: Kernel, q: int, order: int = 3, weighting: str = 'typical') -> Mimic:
    """min_{c, b >= 0} E (phi(t) - c - sum_{l<=L} b_l P_l(q; t))^2: the LegendreKernel of order L nearest to ``kernel``.

    'typical': t of independent uniform points, where P_l are orthogonal, so the minimum is at the kernel's own b_l (those
    below 0 become 0). 'flat': t uniform on [-1, 1], which also looks at pairs that are close or opposite: at large q the
    former never sees them, yet a collapsing cloud consists of them. Compare both residuals before you trust either.
    """
    check_words('mimic', weighting=(weighting, WEIGHTINGS))
    check_numbers('mimic', whole=True, order=order)
    # q = 3: u.v is uniform on [-1, 1]
    t, w = adapted_quadrature(kernel.profile(q), q if weighting == 'typical' else 3)
    phi, slope = kernel.phi(t, q), kernel.dphi(t, q)
    variance = (w * (phi - (w * phi).sum()).square()).sum()
    if variance <= (ROUNDING * phi.abs().max()) ** 2:
        raise ValueError(f'{kernel} is constant at q = {q}, as far as {weighting} pairs show: nothing to mimic.')
    if weighting == 'typical':
        b = kernel.coefficients(q, order)
        constant, weights = float(b[0]), b[1:].clamp_min(0)
    else:
        constant, weights = _least_squares(phi, torch.stack(legendre_polynomials(order, q, t)), w)
    weights = torch.where(weights > ROUNDING * float((w * (phi - constant).square()).sum().sqrt()), weights, 0)
    if not bool(weights.any()):
        raise NoMimicError(
            f'No LegendreKernel of order {order} resembles {kernel} at q = {q}: all b_l = 0. Raise order.'
        )
    nearest = LegendreKernel(tuple(weights.tolist()))
    left, slope_left = phi - constant - nearest.phi(t, q), slope - nearest.dphi(t, q)
    return Mimic(
        weights=nearest.weights,
        constant=constant,
        residual=float(((w * left.square()).sum() / variance).sqrt()),
        slope_residual=float(((w * slope_left.square()).sum() / (w * slope.square()).sum()).sqrt()),
        weighting=weighting,
    )


def _least_squares(phi: Tensor, P: Tensor, w: Tensor) -> tuple[float, Tensor]:
    """(c, b >= 0) of min sum_k w_k (phi_k - c P_0k - sum_l b_l P_lk)^2; Lawson & Hanson's non-negative least squares."""
    from scipy.optimize import nnls  # comes with scikit-learn; the room itself needs torch alone

    centre = (w * phi).sum()
    # c is free: it is projected out, so that the rest is non-negative as a whole
    columns = (P[1:] - (w * P[1:]).sum(1, keepdim=True)) * w.sqrt()
    weights = torch.from_numpy(nnls(columns.T.numpy(), ((phi - centre) * w.sqrt()).numpy())[0])
    return float(centre - (weights[:, None] * P[1:] * w).sum()), weights


def summary(profile: KernelProfile) -> dict:
    """The numbers of a profile without its tables, for JSON."""
    words = ('t', 'phi', 'slope')
    return dict(
        q=profile.q,
        count=profile.count,
        coefficients=profile.coefficients.tolist(),
        positive_definite=bool(profile.definiteness),
        null_sd_u=profile.band_u.sd,
        null_mean_v=profile.band_v.mean if profile.band_v else None,
        normal_null_sd_u=profile.normal_u.sd if profile.normal_u else None,
        normal_null_mean_v=profile.normal_v.mean if profile.normal_v else None,
        point=profile.point,
        typical={name: dict(zip(words, values, strict=True)) for name, values in profile.typical.items()},
        degree_gradients=profile.degree_gradients,
    )
