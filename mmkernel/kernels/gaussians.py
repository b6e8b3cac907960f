"""Gaussian kernels of R^q: one, a mixture, and the one-dimensional Gaussian or its knots averaged over all directions."""

import math

import torch
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.kernels.fused import kept
from mmkernel.kernels.legendre import gauss_gegenbauer
from mmkernel.kernels.nodes import beta_nodes, fewer_frequencies
from mmkernel.kernels.radial import RadialKernel, at_width, gaussian_coefficients, power_of_width

_NODES = 64  # of a mixture and of a sum of cosines


class RBFKernel(RadialKernel):
    """K(u, v) = exp(-scale ||u-v||^2); on the unit sphere exp(-2 scale (1-t)), every b_l > 0.

    With the logarithm of its U-statistic: the uniformity of Wang & Isola, ICML 2020 (their t is ``scale``). Against N(0, I):
    the test of Baringhaus & Henze, Metrika 1988, with scale = beta^2 / 2. ``scale``: a number or a word; '0.5/q' where r^2 is of
    the size of q.
    """

    def __init__(self, scale: float | str = 2.0, radius: float | str = 1.0) -> None:
        super().__init__(radius)
        self._power = power_of_width('RBFKernel', scale=scale)
        self.scale = scale if isinstance(scale, str) else float(scale)

    def f(self, r2: Tensor, q: int) -> Tensor:
        return (r2 * -at_width(self._power, q)).exp()

    def df(self, r2: Tensor, q: int) -> Tensor:
        return -at_width(self._power, q) * self.f(r2, q)

    def mixture(self, q: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([at_width(self._power, q)], dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def coefficients(self, q: int, order: int) -> Tensor:
        """Their closed form, of one Gaussian: ``gaussian_coefficients``."""
        return gaussian_coefficients(self.mixture(q)[0] * self._scale(q), q, order)[0]


class GaussianMixtureKernel(RadialKernel):
    """K(u, v) = sum_k w_k exp(-s_k ||u-v||^2), s = ``scales``, w = ``weights`` > 0 (None: each 1 over their number).

    By Schoenberg (1938) every radial kernel that is positive definite in all dimensions is one, perhaps of infinitely many.
    ``scales``: numbers or words such as '0.5/q'.
    """

    def __init__(
        self,
        scales: tuple[float | str, ...],
        weights: tuple[float, ...] | None = None,
        radius: float | str = 1.0,
    ) -> None:
        super().__init__(radius)
        if isinstance(scales, (str, int, float)) or not scales:
            raise ValueError(f'GaussianMixtureKernel.scales={scales!r}; expected a list: [{scales!r}].')
        self._powers = tuple(power_of_width('GaussianMixtureKernel', scales=s) for s in scales)
        weights = (1 / len(scales),) * len(scales) if weights is None else weights
        check_numbers('GaussianMixtureKernel', several=True, weights=weights)
        if len(weights) != len(scales):
            raise ValueError(
                f'GaussianMixtureKernel has {len(scales)} scales and {len(weights)} weights; expected as many.'
            )
        self.scales, self.weights = tuple(scales), tuple(float(w) for w in weights)

    def f(self, r2: Tensor, q: int) -> Tensor:
        return sum(w * (r2 * -at_width(s, q)).exp() for s, w in zip(self._powers, self.weights, strict=True))

    def df(self, r2: Tensor, q: int) -> Tensor:
        scales = [at_width(s, q) for s in self._powers]
        return sum(-w * s * (r2 * -s).exp() for s, w in zip(scales, self.weights, strict=True))

    def mixture(self, q: int) -> tuple[Tensor, Tensor]:
        scales = [at_width(s, q) for s in self._powers]
        return torch.tensor(scales, dtype=torch.float64), torch.tensor(self.weights, dtype=torch.float64)


class EppsPulleyKernel(RadialKernel):
    """K(u, v) = E_a int e^{-t^2/2} cos(t a.(u-v)) dt = sqrt(2 pi) M(1/2, q/2, -r^2/2), a uniform on the unit sphere of R^q.

    The squared MMD to N(0, I) is the mean over *all* directions of Epps & Pulley's statistic (Biometrika 1983) over n, so n times
    it is SIGReg (Balestriero & LeCun, LeJEPA, arXiv 2511.08544, 2025) without the noise of its slices.

    (a.(u-v))^2 / r^2 ~ Beta(1/2, (q-1)/2): here a mixture of 64 Gaussians, right to 1e-13 for r up to 2 sqrt(2q), to 1e-11 up to
    twice that.
    """

    def f(self, r2: Tensor, q: int) -> Tensor:
        return sum(w * (r2 * -s).exp() for s, w in self._terms(q))

    def df(self, r2: Tensor, q: int) -> Tensor:
        return sum(-s * w * (r2 * -s).exp() for s, w in self._terms(q))

    def mixture(self, q: int) -> tuple[Tensor, Tensor]:
        s, w = beta_nodes(0.5, (q - 1) / 2, _NODES)
        return s / 2, math.sqrt(2 * math.pi) * w

    @kept
    def _terms(self, q: int) -> tuple[tuple[float, float], ...]:
        """Those of the mixture that a float64 sum feels."""
        return tuple((s, w) for s, w in zip(*(v.tolist() for v in self.mixture(q)), strict=True) if w > 1e-18)


class EppsPulleyKnotsKernel(RadialKernel):
    """K(u, v) = sum_k w_k E_a cos(t_k a.(u-v)) = sum_k w_k Omega_q(t_k r), knots t_k evenly on [0, t_max].

    As published code computes ``EppsPulleyKernel``'s integral: w_k = 2 dt e^{-t_k^2/2}, half of that at the last knot (and at
    t = 0, which no MMD^2 sees). Omega_q(s) = 0F1(; q/2; -s^2/4) is the characteristic function of the sphere. E K(u, Z) =
    sum_k w_k e^{-t_k^2/2} Omega_q(t_k ||u||), E K(Z, Z') = sum_k w_k e^{-t_k^2}.

    For parity with sliced code; the integral is smoother, and cheaper. Here 64 cosines stand for all knots and directions,
    right to 1e-12 while t_max r < 200 or r < 6 sqrt(2q); from there on f is constant.
    """

    def __init__(self, knots: int = 17, t_max: float = 3.0, radius: float | str = 1.0) -> None:
        super().__init__(radius)
        check_numbers('EppsPulleyKnotsKernel', whole=True, least=2, knots=knots)
        check_numbers('EppsPulleyKnotsKernel', t_max=t_max)
        self.knots, self.t_max = int(knots), float(t_max)

    def f(self, r2: Tensor, q: int) -> Tensor:
        r = _root(r2, self._reach(q))
        return sum(w * (f * r).cos() for f, w in self._cosines(q, 0.0))

    def df(self, r2: Tensor, q: int) -> Tensor:
        """sum_k -w_k f_k sin(f_k r) / (2 r), 0 beyond the reach."""
        r = _root(r2, self._reach(q))
        slope = sum((-w * f / 2) * (f * r).sin() for f, w in self._cosines(q, 0.0)) / r
        return slope.masked_fill(r2 > self._reach(q) ** 2, 0)

    def target(self, rho: Tensor, q: int) -> Tensor:
        frequencies, weights = self._against_normal(q, rho.dtype, rho.device)
        return ((_root(rho, self._reach(q))[..., None] * frequencies).cos() * weights).sum(-1)

    @kept
    def target_constant(self, q: int) -> float:
        t, w = self._knots()
        return float((w * (-t.square()).exp()).sum())

    def _knots(self) -> tuple[Tensor, Tensor]:
        t = torch.linspace(0, self.t_max, self.knots, dtype=torch.float64)
        w = 2 * t[1] * (-t.square() / 2).exp()
        w[[0, -1]] /= 2
        return t, w

    def _reach(self, q: int) -> float:
        """The r up to which the cosines are those of the knots."""
        return max(200 / self.t_max, 6 * math.sqrt(2 * q))

    @kept
    def _cosines(self, q: int, damping: float) -> tuple[tuple[float, float], ...]:
        """(f, w): frequencies t_k |a_1| with the law of the first coordinate of a, and weights w_k e^{-damping t_k^2 / 2}."""
        a, of_a = gauss_gegenbauer(q, 256)
        t, w = self._knots()
        frequencies, weights = t[:, None] * a[128:], (w * (-damping * t.square() / 2).exp())[:, None] * (2 * of_a[128:])
        felt = weights > 1e-20
        found = fewer_frequencies(frequencies[felt], weights[felt], _NODES)
        return tuple(zip(*(v.tolist() for v in found), strict=True))

    @kept
    def _against_normal(self, q: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        with torch.inference_mode(False):
            return torch.tensor(self._cosines(q, 1.0), dtype=torch.float64).T.to(device, dtype)


def _root(r2: Tensor, reach: float) -> Tensor:
    """r, with a finite slope at 0 and none beyond ``reach``."""
    return r2.clamp(1e-24, reach**2).sqrt()
