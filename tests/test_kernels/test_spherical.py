"""Heat, bandlimited and arc-cosine kernels against their definitions; the Stein kernel against the Laplace-Beltrami operator."""

import math

import pytest
import torch

from mmkernel.kernels import (
    ArcCosineKernel,
    BandlimitedKernel,
    EppsPulleyKernel,
    HeatKernel,
    InverseMultiquadricKernel,
    Kernel,
    LegendreKernel,
    PolynomialKernel,
    RBFKernel,
    RieszKernel,
    kernel_energy,
    legendre_polynomials,
    mmd2_to_uniform,
    null_band,
    num_harmonics,
    stein,
)
from mmkernel.kernels.series import legendre_series

T = torch.linspace(-1, 1, 41, dtype=torch.float64)


def normal(n, q, seed=0):
    return torch.randn(n, q, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('q', [2, 3, 16, 32768])
def test_clenshaw_equals_the_sum(q):
    b = torch.linspace(-1, 2, 12, dtype=torch.float64).tolist()
    expected = sum(weight * p for weight, p in zip(b, legendre_polynomials(11, q, T), strict=True))
    torch.testing.assert_close(legendre_series(b, q, T), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('q, time', [(2, 0.01), (3, 0.3), (16, 0.002), (256, 5 / 256)])
def test_heat_kernel_is_its_series(q, time):
    terms = [num_harmonics(q, l) * math.exp(-l * (l + q - 2) * time) for l in range(150)]
    kernel, total = HeatKernel(time), sum(terms)
    torch.testing.assert_close(
        kernel.coefficients(q, 6), torch.tensor(terms[:7], dtype=torch.float64) / total, rtol=1e-12, atol=0
    )
    expected = sum(b / total * p for b, p in zip(terms, legendre_polynomials(149, q, T), strict=True))
    torch.testing.assert_close(kernel.phi(T, q), expected, rtol=0, atol=1e-13)
    assert kernel.value_at_one(q) == pytest.approx(1, rel=1e-12)


def test_heat_kernel_of_five_over_q():
    b = HeatKernel('5/q').coefficients(256, 4)
    assert [round(float(x), 2) for x in b[1:] / b[1]] == [1.0, 0.85, 0.46, 0.18]


def test_heat_kernels_form_a_semigroup():
    """K_s * K_t = K_{s+t}: the convolution over uniform points multiplies b_l/N(q, l)."""
    q, harmonics = 9, torch.tensor([num_harmonics(9, l) for l in range(8)], dtype=torch.float64)

    def rates(time):
        b = HeatKernel(time).coefficients(q, 7) / harmonics
        return b / b[0]

    torch.testing.assert_close(rates(0.02) * rates(0.03), rates(0.05), rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize('q, time', [(32768, '5/q'), (32768, '4/q'), (4096, '3/q'), (3, 1e-4)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_heat_kernel_stays_finite(q, time, dtype):
    kernel = HeatKernel(time)
    phi, slope = kernel.phi(T.to(dtype), q), kernel.dphi(T.to(dtype), q)
    assert torch.isfinite(phi).all()
    assert torch.isfinite(slope).all()
    assert float(phi.abs().max()) == pytest.approx(1, rel=1e-3)
    assert (kernel.coefficients(q, 8) >= 0).all()


def test_heat_kernel_that_is_too_sharp_is_refused():
    with pytest.raises(ValueError, match=r'time = 1e-09 is too small at q = 64: more than 4096 degrees matter'):
        HeatKernel(1e-9)
    for time in (0, -1.0, math.inf, 'q/5', '-5/q', 'soon'):
        with pytest.raises(ValueError, match='time'):
            HeatKernel(time)


def test_bandlimited_weights_are_multiplicities():
    b = BandlimitedKernel(2).coefficients(256, 4)
    assert float(b[2] / b[1]) == pytest.approx(32895 / 256)
    assert float(b.sum()) == pytest.approx(1)
    assert b[0] == b[3] == 0
    harmonics = torch.tensor([num_harmonics(8192, l) for l in range(1, 7)], dtype=torch.float64)
    torch.testing.assert_close(BandlimitedKernel(6).coefficients(8192, 6)[1:], harmonics / harmonics.sum())
    assert BandlimitedKernel(6).positive_definiteness(8192, 8).vanishing == [7, 8]
    assert len(BandlimitedKernel(2).monomials(64)) == 3  # degree 2: no Gram matrix where q < N


@pytest.mark.parametrize('n', [0, 1, 2])
def test_arc_cosine_kernel_is_a_layer_of_random_units(n):
    a = normal(400_000, 3, seed=n)
    u = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    for t in (-0.6, 0.1, 0.8):
        v = torch.tensor([t, math.sqrt(1 - t * t), 0], dtype=torch.float64)
        units = [(a @ x > 0) * (a @ x) ** n for x in (u, v)]
        assert float(2 * (units[0] * units[1]).mean()) == pytest.approx(
            float(ArcCosineKernel(n).phi(torch.tensor(t).double(), 3)), abs=0.02
        )
    blind = ArcCosineKernel(n).positive_definiteness(16, 7).vanishing
    assert blind == [l for l in range(n + 1, 8) if (l - n) % 2 == 0]


def test_arc_cosine_order_is_checked():
    with pytest.raises(ValueError, match='order is one of 0, 1, 2, got 3'):
        ArcCosineKernel(3)


@pytest.mark.parametrize(
    'kernel',
    [
        RBFKernel(1.3),
        LegendreKernel((1.0, 2.0, 3.0)),
        HeatKernel(0.1),
        InverseMultiquadricKernel(),
        PolynomialKernel(3, 0.2),
    ],
    ids=str,
)
@pytest.mark.parametrize('q', [2, 3, 7])
def test_stein_kernel_is_the_laplace_beltrami_operator(kernel, q):
    """-1/2 of the trace of the Hessian of u -> phi(u.v / ||u||), which does not change along u."""
    z = torch.nn.functional.normalize(normal(8, q), dim=-1)
    for u, v in zip(z[:4], z[4:], strict=True):
        hessian = torch.autograd.functional.hessian(lambda u, v=v: kernel.phi(u @ v / u.norm(), q), u)
        torch.testing.assert_close(stein(kernel).phi(u @ v, q), -hessian.trace() / 2, rtol=1e-9, atol=1e-10)


def test_stein_discrepancy_by_tangential_gradients_is_the_mmd():
    """The largest (E A f)^2 over the unit ball of the space with features (-A)^{-1/2} of the kernel's, on the circle.

    Its features are sqrt(b_l) cos(l x), sqrt(b_l) sin(l x), and A f = f''/2 is taken by autograd.
    """
    b = (1.0, 4.0, 0.5)
    x = (torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 5).requires_grad_()
    squared = 0.0
    for l, weight in enumerate(b, start=1):
        for wave in (torch.cos, torch.sin):
            f = math.sqrt(weight) * wave(l * x)  # a feature; (-A)^{-1/2} divides it by l / sqrt(2)
            (slope,) = torch.autograd.grad(f.sum(), x, create_graph=True)
            (second,) = torch.autograd.grad(slope.sum(), x)
            squared += (second.mean() / 2 / (l / math.sqrt(2))) ** 2
    z = torch.stack([x.cos(), x.sin()], 1).detach()
    torch.testing.assert_close(mmd2_to_uniform(z, stein(LegendreKernel(b))), squared, rtol=1e-12, atol=0)


def test_stein_reweights_the_expansion():
    q, l = 24, torch.arange(7, dtype=torch.float64)
    for kernel in (RBFKernel(2.0), HeatKernel(0.1), LegendreKernel((1.0, 40.0, 40.0))):
        torch.testing.assert_close(stein(kernel).coefficients(q, 6), l * (l + q - 2) / 2 * kernel.coefficients(q, 6))
    z = normal(30, q)
    parts = [weight * (l + 1) * (l + 1 + q - 2) / 2 for l, weight in enumerate((1.0, 40.0, 40.0))]
    ours, reweighted = stein(LegendreKernel((1.0, 40.0, 40.0))), LegendreKernel(tuple(parts))
    torch.testing.assert_close(kernel_energy(z, ours), kernel_energy(z, reweighted), rtol=1e-12, atol=0)
    assert null_band(ours, q, 100).sd == pytest.approx(null_band(reweighted, q, 100).sd, rel=1e-9)


@pytest.mark.parametrize('n', [1, 2])
def test_arc_cosine_kernels_at_both_ends(n):
    """Values there are exact, and the Stein kernel is (q-1)/2 phi'(1) and -(q-1)/2 phi'(-1)."""
    kernel, ends, q = ArcCosineKernel(n), torch.tensor([-1.0, 1.0], dtype=torch.float64), 5
    assert kernel.phi(ends, q).tolist() == pytest.approx([0, {1: 1, 2: 3}[n]], abs=1e-15)
    assert stein(kernel).phi(ends, q).tolist() == pytest.approx([0, (q - 1) / 2 * {1: 1, 2: 4}[n]], abs=1e-12)
    z = normal(9, q).requires_grad_()
    energy = kernel_energy(torch.cat([z, z[:2]]), stein(kernel))
    assert energy.isfinite()
    assert torch.autograd.grad(energy, z)[0].isfinite().all()


def test_stein_of_a_kernel_with_a_kink_is_for_the_u_statistic():
    with pytest.raises(ValueError, match="Use statistic='U'"):
        kernel_energy(normal(9, 4), stein(RieszKernel()))
    assert torch.isfinite(kernel_energy(normal(9, 4), stein(RieszKernel()), 'U'))


class OnlyPhi(Kernel):
    def phi(self, t, q):
        return (3 - 2 * t).rsqrt()


def test_stein_of_a_kernel_of_ones_own():
    torch.testing.assert_close(stein(OnlyPhi()).phi(T, 5), stein(InverseMultiquadricKernel()).phi(T, 5))
    torch.testing.assert_close(stein(OnlyPhi()).dphi(T, 5), stein(InverseMultiquadricKernel()).dphi(T, 5))


@pytest.mark.parametrize(
    'kernel, q, b1, ratios',
    [
        (EppsPulleyKernel(radius='sqrt(q)'), 512, 0.193 * math.sqrt(2 * math.pi), (0.501, 0.278, 0.162)),
        (EppsPulleyKernel(radius='sqrt(q)'), 16, None, (0.510, 0.272, 0.144)),
        (InverseMultiquadricKernel('q', radius='sqrt(q)'), 512, 0.193, (0.500, 0.278, 0.162)),
        (RieszKernel(radius='sqrt(q)'), 512, None, (0.250, 0.125, 0.078)),
        (RBFKernel(2.0), 512, None, (2.00, 2.65, 2.64)),
        (RBFKernel(2.5), 512, None, (2.50, 4.14, 5.15)),
        (EppsPulleyKernel(), 512, None, (0.003, 0.0, 0.0)),  # on the unit sphere it is blind to the covariance
    ],
    ids=str,
)
def test_what_radial_kernels_are_on_the_sphere(kernel, q, b1, ratios):
    b = kernel.coefficients(q, 4)
    assert b1 is None or float(b[1]) == pytest.approx(b1, rel=2e-3)
    assert (b[2:] / b[1]).tolist() == pytest.approx(ratios, rel=3e-3, abs=5e-4)
