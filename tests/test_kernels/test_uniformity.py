"""The null band against its series, against simulation, and at widths where naive sums lose their digits."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad

from mmkernel.kernels import (
    Kernel,
    LaplaceKernel,
    LegendreKernel,
    PolynomialKernel,
    RBFKernel,
    RieszKernel,
    mmd2_to_uniform,
    null_band,
    num_harmonics,
    profile_variance,
)
from mmkernel.kernels.legendre import quadrature_coefficients

KERNELS = [
    LegendreKernel((1.0, 40.0, 40.0)),
    LegendreKernel((1.0,)) + 0.5 * RBFKernel(1.0),
    RBFKernel(2.0),
    RieszKernel(1.0),
    LaplaceKernel(1.0),
    PolynomialKernel(2),
]


@pytest.mark.parametrize('q', [3, 64, 32768])
def test_the_series_of_a_finite_expansion(q):
    kernel = LegendreKernel((1.0, 40.0, 40.0))
    series = sum(b**2 / num_harmonics(q, l) for l, b in enumerate((1, 40, 40), start=1))
    assert profile_variance(kernel, q) == pytest.approx(series, rel=1e-9)
    band = null_band(kernel, q, 100, 'V')
    assert band.mean == pytest.approx(81 / 100)
    assert band.sd == pytest.approx(0.99 * math.sqrt(2 / 9900 * series), rel=1e-9)
    assert null_band(kernel, q, 100).mean == 0


@pytest.mark.parametrize('kernel', KERNELS[1:], ids=lambda k: type(k).__name__)
def test_the_series_of_an_infinite_expansion(kernel):
    q, order = 8, 60  # N(8, 60) is small enough for quadrature of every b_l
    b = kernel.coefficients(q, order)
    series = sum(float(b[l]) ** 2 / num_harmonics(q, l) for l in range(1, order + 1))
    assert profile_variance(kernel, q) == pytest.approx(series, rel=1e-4)


@pytest.mark.parametrize(
    'kernel', [RieszKernel(1.0), LaplaceKernel(2.0), LaplaceKernel(20.0), RBFKernel(200.0)], ids=str
)
@pytest.mark.parametrize('q', [2, 3, 8, 30])
def test_corners_at_small_widths(kernel, q):
    """Against adaptive integration over the angle, where phi has no corner."""
    norm = quad(lambda a: math.sin(a) ** (q - 2), 0, math.pi)[0]

    def phi(angle):
        return float(kernel.phi(torch.tensor(math.cos(angle), dtype=torch.float64), q))

    def integral(f):
        return quad(lambda a: f(a) * math.sin(a) ** (q - 2), 0, math.pi, epsabs=0, epsrel=1e-11, limit=500)[0] / norm

    mean = integral(phi)
    assert profile_variance(kernel, q) == pytest.approx(integral(lambda a: (phi(a) - mean) ** 2), rel=1e-7)
    assert float(quadrature_coefficients(lambda t: kernel.phi(t, q), q, 0)[0]) == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize('statistic', ['U', 'V'])
@pytest.mark.parametrize('q', [2, 3, 16])
@pytest.mark.parametrize('kernel', KERNELS, ids=lambda k: type(k).__name__)
def test_simulated_uniform_points(kernel, q, statistic):
    """Mean and sd of 4000 clouds: the mean within 5 standard errors, the sd within a tenth (at q = 2 the law is skewed)."""
    draws, count = 4000, 12
    generator = torch.Generator().manual_seed(0)
    clouds = F.normalize(torch.randn(draws, count, q, generator=generator, dtype=torch.float64), dim=2)
    values = kernel.phi((clouds @ clouds.mT).clamp(-1, 1), q)
    values.diagonal(dim1=1, dim2=2).fill_(kernel.value_at_one(q) if statistic == 'V' else 0)
    pairs = count * count if statistic == 'V' else count * (count - 1)
    values = values.sum((1, 2)) / pairs - float(kernel.coefficients(q, 0)[0])
    assert float(values[7]) == pytest.approx(float(mmd2_to_uniform(clouds[7], kernel, statistic)), abs=1e-9)
    band = null_band(kernel, q, count, statistic)
    assert abs(float(values.mean()) - band.mean) < 5 * band.sd / math.sqrt(draws)
    assert float(values.std()) == pytest.approx(band.sd, rel=0.1)
    assert abs(band.score(float(values.mean()))) < 5 / math.sqrt(draws)


def test_two_points_have_the_variance_of_one_pair():
    kernel, q = RBFKernel(1.0), 5
    assert null_band(kernel, q, 2).sd == pytest.approx(math.sqrt(profile_variance(kernel, q)))


class Pole(Kernel):
    """phi(t) = -log(1 - t): infinite at t = 1."""

    def phi(self, t, q):
        return -torch.log1p(-t)


def test_a_pole_has_a_band_without_the_diagonal_only():
    assert null_band(Pole(), 8, 50).sd > 0
    with pytest.raises(ValueError, match="Use statistic='U'"):
        null_band(Pole(), 8, 50, 'V')


class Constant(Kernel):
    """phi = 1."""

    def phi(self, t, q):
        return torch.ones_like(t)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((RBFKernel(), 8, 1), 'count = 1'),
        ((RBFKernel(), 8, 10, 'W'), "got 'W'"),
        ((RBFKernel(), 1, 10), 'q >= 2'),
        ((Constant(), 8, 10), 'is constant'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        null_band(*arguments)
