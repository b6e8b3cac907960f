"""Closed forms against 25-digit figures, algebra of kernels, and what a wrong kernel is told."""

import math

import numpy as np
import pytest
import torch

from mmkernel.kernels import (
    Kernel,
    LaplaceKernel,
    LegendreKernel,
    PolynomialKernel,
    RBFKernel,
    RieszKernel,
    kernel_energy,
    num_harmonics,
)
from mmkernel.kernels.legendre import quadrature_coefficients
from mmkernel.registry import KERNELS

T = torch.linspace(-0.9, 0.9, 19, dtype=torch.float64)


def test_rbf_coefficients_to_25_digits(golden):
    g = golden('expansion_rbf_t2_q16')
    b = RBFKernel(scale=float(g['hp_t'])).coefficients(int(g['hp_q']), int(g['hp_degrees'][-1]))
    np.testing.assert_allclose(b, g['out_b'], rtol=1e-11)


def test_riesz_coefficients_to_25_digits(golden):
    g = golden('expansion_distance_s1_q3')
    b = RieszKernel(exponent=float(g['hp_s']), constant=0.0).coefficients(int(g['hp_q']), int(g['hp_degrees'][-1]))
    np.testing.assert_allclose(b, g['out_b'], rtol=1e-11)


@pytest.mark.parametrize(
    'kappa, q, expected',
    [
        (5, 3, [0.099995, 0.240016, 0.259961, 0.196093, 0.114963]),
        (5, 128, [0.007429, 0.037087, 0.091860, 0.150533, 0.183638]),
        (5, 8192, [0.006748, 0.033741, 0.084343, 0.140537, 0.175606]),
        (5, 32768, [0.006741, 0.033703, 0.084254, 0.140415, 0.175502]),
    ],
)
def test_rbf_coefficients_never_underflow(kappa, q, expected):
    np.testing.assert_allclose(RBFKernel(scale=kappa / 2).coefficients(q, 4), expected, atol=6e-7)


def test_rbf_coefficients_at_extreme_scales_stay_finite():
    b = RBFKernel(scale=2000.0).coefficients(16, 5)
    assert torch.isfinite(b).all()
    assert (b > 0).all()


@pytest.mark.parametrize(
    'q, expected', [(8, [-1.38933, 0.74097, 0.19069, 0.09635]), (2048, [-1.41413, 0.70724, 0.17685, 0.08845])]
)
def test_riesz_coefficients(q, expected):
    np.testing.assert_allclose(RieszKernel(constant=0.0).coefficients(q, 3), expected, atol=6e-6)


def test_powers():
    q = 11
    np.testing.assert_allclose(PolynomialKernel(degree=2).coefficients(q, 3), [1 / q, 0, (q - 1) / q, 0], atol=1e-14)
    np.testing.assert_allclose(
        PolynomialKernel(degree=3).coefficients(q, 3), [0, 3 / (q + 2), 0, (q - 1) / (q + 2)], atol=1e-14
    )


def test_algebra():
    rbf, cubic = RBFKernel(0.5), LegendreKernel((1.0, 40.0, 40.0))
    mixed = 2 * rbf + cubic * 0.5
    torch.testing.assert_close(mixed.phi(T, 9), 2 * rbf.phi(T, 9) + 0.5 * cubic.phi(T, 9))
    torch.testing.assert_close(mixed.coefficients(9, 4), 2 * rbf.coefficients(9, 4) + 0.5 * cubic.coefficients(9, 4))
    torch.testing.assert_close((rbf * rbf).coefficients(9, 4), RBFKernel(1.0).coefficients(9, 4), rtol=1e-8, atol=1e-10)
    z = torch.randn(20, 9, dtype=torch.float64)
    torch.testing.assert_close(kernel_energy(z, mixed), 2 * kernel_energy(z, rbf) + 0.5 * kernel_energy(z, cubic))


@pytest.mark.parametrize('scale', [0, -1.0, float('inf'), float('nan')])
def test_scaling_must_be_positive(scale):
    with pytest.raises(ValueError, match='expected one or more finite numbers > 0'):
        scale * RBFKernel()


def test_a_kernel_of_one_method():
    class InverseMultiquadric(Kernel):
        def phi(self, t, q):
            return (2.25 - 2 * t).rsqrt()

    kernel = InverseMultiquadric()
    torch.testing.assert_close(kernel.dphi(T, 5), (2.25 - 2 * T) ** -1.5)
    np.testing.assert_allclose(kernel.coefficients(16, 3), [0.680, 0.326, 0.227, 0.172], atol=6e-4)
    assert kernel.positive_definiteness(16)


def test_a_kernel_without_phi_says_so():
    with pytest.raises(NotImplementedError, match='phi'):
        Kernel().phi(T, 5)


@pytest.mark.parametrize(
    'weights, message',
    [
        ((), 'weights=nothing'),
        ((0.0, 0.0), 'all zero'),
        ((1.0, -2.0), r'b_2 = -2.0 is not positive definite'),
        ((1.0, float('nan')), 'finite'),
    ],
)
def test_wrong_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        LegendreKernel(weights)


def test_indefinite_on_purpose():
    report = LegendreKernel((1.0, -2.0), indefinite=True).positive_definiteness(7, 3)
    assert not report
    assert report.negative == [2]
    assert report.vanishing == [3]
    assert 'not positive definite' in str(report)


def test_positive_definiteness_looks_past_the_constant():
    report = RieszKernel(constant=0.0).positive_definiteness(6)
    assert report
    assert report.constant < 0


@pytest.mark.parametrize('exponent', [0, -1, 2.1])
def test_riesz_outside_its_range(exponent):
    with pytest.raises(ValueError, match='0 < exponent <= 2'):
        RieszKernel(exponent)


def test_unknown_kernel_names_the_nearest():
    with pytest.raises(KeyError, match="Did you mean 'LegendreKernel'"):
        KERNELS.build(dict(type='LegendrKernel', weights=(1.0,)))


def test_unknown_keyword_names_the_nearest():
    with pytest.raises(TypeError, match="unknown keyword 'weight'. Did you mean 'weights'"):
        KERNELS.build(dict(type='LegendreKernel', weight=(1.0,)))


def test_import_needs_torch_alone():
    """mmkernel.kernels must not pull in mmengine, so that it runs where only torch is installed."""
    import subprocess
    import sys

    code = (
        'import sys\n'
        'for name in ("mmengine", "timm", "torchvision", "numpy.typing", "sklearn", "cv2"): sys.modules[name] = None\n'
        'import torch, mmkernel.kernels as k\n'
        'print(float(k.kernel_energy(torch.eye(4), k.LegendreKernel((1., 1.)))))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    b1, b2 = 1.0, 1.0
    expected = (b1 + b2) / 4 + 3 / 4 * (b2 * -1 / 3)
    assert math.isclose(float(done.stdout), expected, rel_tol=1e-5)
    assert num_harmonics(4, 1) == 4


@pytest.mark.parametrize('scale', [0.3, 2.0])
@pytest.mark.parametrize('q', [24, 1024])
def test_laplace_is_a_mixture_of_gaussians(scale, q):
    kernel = LaplaceKernel(scale)
    by_quadrature = quadrature_coefficients(lambda t: kernel.phi(t, q), q, 5)
    torch.testing.assert_close(kernel.coefficients(q, 5), by_quadrature, rtol=1e-8, atol=0)
    high = kernel.coefficients(q, 40)  # derivatives of order 40 are out of reach
    assert (high > 0).all()
    assert float(high.sum()) < 1  # phi(1) = sum of all


def test_high_degrees_of_a_product():
    """Derivatives of order 20 are out of autograd's reach; eight integrations by parts are enough."""
    b = (LaplaceKernel(1.0) * RBFKernel(1.0)).coefficients(64, 20)
    assert (b > 0).all()
    assert float(b.sum()) < 1


def test_a_degree_that_is_out_of_reach_is_refused():
    with pytest.raises(ValueError, match=r'ProductKernel: b_\d+ at q = 512 is not known to 1e-6: .*too large a graph'):
        (LaplaceKernel(1.0) * RBFKernel(1.0)).coefficients(512, 40)
