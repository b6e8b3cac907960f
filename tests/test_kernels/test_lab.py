import json
import math

import pytest
import torch
from scipy.integrate import quad

from mmkernel.kernels import (
    EppsPulleyKernel,
    HeatKernel,
    InverseMultiquadricKernel,
    Kernel,
    LaplaceKernel,
    LegendreKernel,
    PolynomialKernel,
    RBFKernel,
    RieszKernel,
    gauss_gegenbauer,
    legendre_polynomial,
    num_harmonics,
)
from mmkernel.kernels.lab import kernel_profile, mimic, slope_size, summary
from mmkernel.kernels.legendre import adapted_quadrature, legendre_derivative


def test_profile_holds_what_the_kernel_says():
    kernel = LegendreKernel((1.0, 40.0, 40.0))
    p = kernel_profile(kernel, q=256, count=128, order=5)
    assert p.coefficients.tolist() == [0, 1, 40, 40, 0, 0]
    torch.testing.assert_close(p.phi, kernel.phi(p.t, 256))
    torch.testing.assert_close(p.slope, kernel.dphi(p.t, 256))
    assert p.t[0] == -1
    assert p.t[-1] == 1
    assert p.point == pytest.approx(81)
    assert p.band_v.mean == pytest.approx(81 / 128)
    t, phi, slope = p.typical['typical, 1/sqrt(q)']
    assert t == 1 / 16
    assert phi == pytest.approx(float(kernel.phi(torch.tensor(t, dtype=torch.float64), 256)))
    assert slope == pytest.approx(float(kernel.dphi(torch.tensor(t, dtype=torch.float64), 256)))
    assert json.loads(json.dumps(summary(p)))['coefficients'] == [0, 1, 40, 40, 0, 0]


@pytest.mark.parametrize('q', [2, 3, 64, 8192])
@pytest.mark.parametrize('l', [1, 2, 5])
def test_slope_of_a_degree_over_uniform_pairs(q, l):
    t, w = gauss_gegenbauer(q)
    expected = math.sqrt(float((w * legendre_derivative(l, q, t) ** 2).sum()))
    assert slope_size(q, l) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize('weighting', ['typical', 'flat'])
def test_a_legendre_kernel_is_its_own_mimic(weighting):
    found = mimic(LegendreKernel((1.0, 40.0, 40.0)), q=64, order=4, weighting=weighting)
    assert found.weights == pytest.approx((1, 40, 40, 0), abs=1e-8)
    assert found.residual < 1e-10
    assert found.slope_residual < 1e-10


@pytest.mark.parametrize('kernel', [RBFKernel(2.0), RieszKernel(1.0)])
def test_fits_are_what_they_claim_to_minimise(kernel):
    """Each is better than the other under its own weighting, and no small change of one weight improves it."""
    q = 32
    for weighting, other in (('typical', 'flat'), ('flat', 'typical')):
        t, w = adapted_quadrature(kernel.profile(q), q if weighting == 'typical' else 3)
        phi = kernel.phi(t, q)

        def left(weights, t=t, w=w, phi=phi):
            difference = phi - LegendreKernel(weights).phi(t, q)
            centred = difference - (w * difference).sum()
            return float((w * centred**2).sum())

        best, rival = mimic(kernel, q, 3, weighting), mimic(kernel, q, 3, other)
        spread = phi - (w * phi).sum()
        assert best.residual == pytest.approx((left(best.weights) / float((w * spread**2).sum())) ** 0.5, rel=1e-6)
        assert left(best.weights) < left(rival.weights)
        for l in range(3):
            for factor in (0.99, 1.01):
                moved = tuple(b * factor if i == l else b for i, b in enumerate(best.weights))
                assert left(moved) >= left(best.weights)


def test_more_degrees_fit_better():
    residuals = [mimic(RBFKernel(2.0), 16, order).residual for order in (1, 2, 3, 4)]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[-1] < 0.1


@pytest.mark.parametrize('weighting', ['typical', 'flat'])
@pytest.mark.parametrize('q', [2, 16, 32768])
def test_an_even_kernel_has_no_fit_of_order_one(q, weighting):
    with pytest.raises(ValueError, match='No LegendreKernel of order 1 resembles'):
        mimic(PolynomialKernel(2), q, 1, weighting)


def test_rounding_is_no_weight():
    assert mimic(LegendreKernel((1, 40, 40)), 3, 4, 'flat').weights[3] == 0
    assert mimic(PolynomialKernel(2), 16, 2).weights[1] == pytest.approx(15 / 16)


@pytest.mark.parametrize('q', [2, 3, 8])
@pytest.mark.parametrize('kernel', [RieszKernel(1.0), LaplaceKernel(3.0), RBFKernel(2.0)], ids=str)
def test_residuals_against_adaptive_integration(kernel, q):
    """Also of kernels with a corner at t = 1, which pairs at small widths see."""
    found = mimic(kernel, q, 3)

    def mean(f, power):
        return quad(lambda a: f(torch.tensor(math.cos(a), dtype=torch.float64)) * math.sin(a) ** power, 0, math.pi)[0]

    def left(t):
        return float(kernel.phi(t, q) - found.constant - found.kernel.phi(t, q)) ** 2

    norm = mean(lambda t: 1.0, q - 2)
    centre = mean(lambda t: float(kernel.phi(t, q)), q - 2) / norm
    variance = mean(lambda t: float(kernel.phi(t, q) - centre) ** 2, q - 2)
    assert found.residual == pytest.approx((mean(left, q - 2) / variance) ** 0.5, rel=1e-5)
    for l, b in enumerate(found.weights, start=1):
        projected = mean(lambda t, l=l: float(kernel.phi(t, q) * legendre_polynomial(l, q, t)), q - 2) / norm
        assert b == pytest.approx(max(0, num_harmonics(q, l) * projected), rel=1e-6, abs=1e-9)


class Flat(Kernel):
    """phi(t) = 3."""

    def phi(self, t, q):
        return torch.full_like(t, 3.0)


def test_a_constant_kernel_has_no_mimic():
    for weighting in ('typical', 'flat'):
        with pytest.raises(ValueError, match='is constant at q = 8'):
            mimic(Flat(), 8, weighting=weighting)


def test_bad_input():
    with pytest.raises(ValueError, match="'typical' or 'flat'"):
        mimic(RBFKernel(), 16, 2, 'gaussian')
    with pytest.raises(ValueError, match='mimic.order=0'):
        mimic(RBFKernel(), 16, 0)
    with pytest.raises(ValueError, match='q >= 2'):
        kernel_profile(RBFKernel(), 1)
    with pytest.raises(ValueError, match='kernel_profile.order=0'):
        kernel_profile(RBFKernel(), 16, order=0)


def test_profile_of_a_kernel_of_the_sphere_and_of_space():
    radial = kernel_profile(EppsPulleyKernel(radius='sqrt(q)'), 64, count=50)
    assert 50 * radial.normal_v.mean == pytest.approx(1.0594, abs=1e-4)
    assert radial.normal_u.mean == 0
    assert radial.normal_u.sd == pytest.approx(radial.normal_v.sd * 50 / 49)
    assert summary(radial)['normal_null_mean_v'] == radial.normal_v.mean
    for kernel in (HeatKernel('5/q'), PolynomialKernel(2)):
        assert kernel_profile(kernel, 64).normal_u is None
    found = mimic(InverseMultiquadricKernel(), 512, order=4)
    b = torch.tensor(found.weights)
    torch.testing.assert_close(b / b[0], torch.tensor([1, 0.5, 0.2776, 0.1616]), rtol=1e-3, atol=0)
