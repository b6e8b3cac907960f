"""b_l of profiles with kinks, steps and cusps: against closed forms at every width, or refused by name."""

import pytest
import torch
from mpmath import mp, mpf

from mmkernel.kernels import (
    Kernel,
    LegendreKernel,
    RBFKernel,
    RieszKernel,
    gauss_gegenbauer,
    legendre_polynomials,
    null_band,
    num_harmonics,
    profile_variance,
    quadrature_coefficients,
)
from mmkernel.kernels.contract import KernelContract
from mmkernel.kernels.lab import kernel_profile, mimic
from mmkernel.kernels.legendre import adapted_quadrature, monomial_coefficients

WIDTHS = [2, 3, 16, 64, 256, 1024, 8192, 32768]
ORDER = 6

# (b_0, b_2, b_4, b_6) of |t|, computed with 40 digits elsewhere
ABS = {
    16: (0.202610302068, 1.60896416348, -2.34601402395, 4.51531530323),
    64: (0.100125908175, 3.20248866301, -17.5743385095, 119.064506041),
    256: (0.0499165077216, 6.38911876071, -137.345560088, 3570.04699234),
    1024: (0.0249399806434, 12.7692457577, -1091.76015908, 112231.039513),
}


def polynomial(l, q, t):
    before, p = mpf(1), mpf(t)
    if l == 0:
        return before
    for k in range(1, l):
        before, p = p, ((2 * k + q - 2) * t * p - k * before) / (k + q - 2)
    return p


def density(q, t):
    return mp.gamma(mpf(q) / 2) / mp.sqrt(mp.pi) / mp.gamma(mpf(q - 1) / 2) * (1 - t * t) ** (mpf(q - 3) / 2)


def power(p, q, l):
    """b_l of |t|^p: l integrations by parts, E_n |t|^s continued to s < -1."""
    if l % 2:
        return mpf(0)
    p = mpf(p) + mpf(10) ** -30  # an odd p is a limit
    s, n = p - l, q + 2 * l
    moment = mp.gamma((s + 1) / 2) * mp.gamma(mpf(n) / 2) / (mp.sqrt(mp.pi) * mp.gamma((n + s) / 2))
    return num_harmonics(q, l) * mp.fprod((p - i) / (q + 2 * i) for i in range(l)) * moment


def step(m, q, l):
    """b_l of [t > m], l >= 1."""
    return num_harmonics(q, l) * density(q + 2, mpf(m)) * polynomial(l - 1, q + 2, mpf(m)) / q


def hinge(m, q, l):
    """b_l of max(0, t - m), l >= 2."""
    return num_harmonics(q, l) * density(q + 4, mpf(m)) * polynomial(l - 2, q + 4, mpf(m)) / (q * (q + 2))


def exponential(c, q, l):
    """b_l of e^{c t}, to l-th order in Rodrigues' formula: c^l E_{q+2l} e^{c t}."""
    n = q + 2 * l
    return (
        num_harmonics(q, l) * mp.fprod(mpf(c) / (q + 2 * i) for i in range(l)) * mp.hyp0f1(mpf(n) / 2, mpf(c) ** 2 / 4)
    )


@pytest.fixture(autouse=True)
def _digits():
    with mp.workdps(50):
        yield


def assert_right(phi, exact, q, first=0, order=ORDER):
    b = quadrature_coefficients(phi, q, order).tolist()
    expected = {l: exact(l) for l in range(first, order + 1)}
    zero = mpf(10) ** -25 * max(map(abs, expected.values()))
    for l, value in expected.items():
        beside = max(abs(b[k]) for k in (l - 1, l + 1) if 0 <= k <= order)
        allowed = 1e-6 * abs(float(value)) if abs(value) > zero else 1e-9 * beside
        assert abs(b[l] - float(value)) <= allowed, (l, b[l], float(value))


@pytest.mark.parametrize('q', ABS)
def test_absolute_value_and_relu(q):
    b = quadrature_coefficients(torch.abs, q, ORDER)
    torch.testing.assert_close(b[::2], torch.tensor(ABS[q], dtype=torch.float64), rtol=1e-10, atol=0)
    assert b[1::2].tolist() == [0, 0, 0]
    b = quadrature_coefficients(torch.relu, q, ORDER)
    torch.testing.assert_close(b[::2], torch.tensor(ABS[q], dtype=torch.float64) / 2, rtol=1e-10, atol=0)
    assert b[1] == pytest.approx(0.5, rel=1e-10)


@pytest.mark.parametrize('p', [0.5, 1, 1.5, 3])
@pytest.mark.parametrize('q', WIDTHS)
def test_absolute_powers(q, p):
    assert_right(lambda t: t.abs() ** p, lambda l: power(p, q, l), q)


@pytest.mark.parametrize('m', [0.01, 0.1, 0.3, -0.2])
@pytest.mark.parametrize('q', WIDTHS)
def test_hinges_steps_and_clamps(q, m):
    if float(density(q, m)) > 1e-250:  # else below the smallest number
        assert_right(lambda t: (t - m).relu(), lambda l: hinge(m, q, l), q, first=2)
        assert_right(lambda t: (t > m).to(t), lambda l: step(m, q, l), q, first=1)
        assert_right(
            lambda t: t.clamp(m, m + 0.05), lambda l: hinge(m, q, l) - hinge(mpf(m) + mpf('0.05'), q, l), q, first=2
        )


@pytest.mark.parametrize('q', WIDTHS)
def test_kinks_on_top_of_what_is_smooth(q):
    """The smooth part has b_l of order one, which quadrature of phi alone would lose at large q."""
    assert_right(lambda t: t.exp() + t.abs(), lambda l: exponential(1, q, l) + power(1, q, l), q)
    assert_right(lambda t: t.exp() + (t - 0.1).relu(), lambda l: exponential(1, q, l) + hinge(0.1, q, l), q, first=2)
    assert_right(
        lambda t: torch.nn.functional.leaky_relu(t, 0.1) + (t > 0.3).to(t),
        lambda l: mpf('0.45') * power(1, q, l) + step(0.3, q, l),
        q,
        first=2,
    )


@pytest.mark.parametrize('q', [3, 64, 8192])
def test_own_versions_of_riesz_and_laplace(q):
    b = quadrature_coefficients(lambda t: 2 - (2 - 2 * t).clamp_min(0).sqrt(), q, ORDER)
    torch.testing.assert_close(b, RieszKernel(1.0).coefficients(q, ORDER), rtol=1e-8, atol=0)


@pytest.mark.parametrize('q', [16, 64, 1024])
def test_the_arc_cosine_kernel(q):
    """phi'' = (1 - t^2)^{-1/2}: every derivative is infinite at the ends, where no density is."""

    def exact(l):
        a = [mpf(c) for c in monomial_coefficients(l - 2, q + 4)[l - 2]]
        even = mp.fsum(
            c * mp.fprod(mpf(i - 1) / (q + 1 + i) for i in range(2, k + 1, 2)) for k, c in enumerate(a) if k % 2 == 0
        )
        # (1 - t^2)^{-1/2} times the density of q + 4 is that of q + 3 but for a factor
        return num_harmonics(q, l) / mpf(q * (q + 2)) * density(q + 4, mpf(0)) / density(q + 3, mpf(0)) * even

    b = quadrature_coefficients(lambda t: (1 - t * t).clamp_min(0).sqrt() + t * (torch.pi - t.acos()), q, 8)
    for l in (2, 4, 6, 8):
        assert float(b[l]) == pytest.approx(float(exact(l)), rel=1e-6)
    assert all(abs(float(b[l])) < 1e-8 * float(b[l + 1]) for l in (3, 5, 7))


def test_what_autograd_cannot_differentiate_twice_is_refused_by_name():
    class Hard(Kernel):
        def phi(self, t, q):
            return torch.nn.functional.hardsigmoid(t)

    assert float(Hard().coefficients(64, 0)) == pytest.approx(0.5)
    with pytest.raises(
        ValueError, match=r'Hard: b_8 at q = 64 is not known to 1e-6: autograd has no derivative of order 2'
    ):
        Hard().coefficients(64, 8)


def test_a_kink_of_high_order_is_found():
    """t^3 on one side: only the third derivative jumps, and b_6 lives on it."""
    q = 1024
    b = quadrature_coefficients(lambda t: t.exp() + t.clamp_min(0) ** 3, q, ORDER)
    assert float(b[6]) == pytest.approx(float(exponential(1, q, 6) + power(3, q, 6) / 2), rel=1e-9)


class Profile(Kernel):
    """phi as given."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def phi(self, t, q):
        return self.function(t)


ROUGH = Profile(lambda t: t.exp().float().to(t.dtype))


@pytest.mark.parametrize('q', [2, 64, 32768])
def test_what_is_not_known_is_refused_by_name_everywhere(q):
    for look in (
        lambda: ROUGH.coefficients(q, 4),
        lambda: ROUGH.positive_definiteness(q, 4),
        lambda: kernel_profile(ROUGH, q),
        lambda: (ROUGH + RBFKernel()).coefficients(q, 4),
    ):
        with pytest.raises(ValueError, match=r'Profile.*b_\d at q = \d+ is not known to 1e-6: .*too rough'):
            look()


def test_no_verdict_on_numbers_that_underflow():
    kernel = Profile(lambda t: (t - 0.5).relu())
    assert kernel.coefficients(32768, 2).tolist() == [0, 0, 0]
    for phi in (kernel, Profile(lambda t: (t - 0.995).relu()), Profile(lambda t: (2e5 * (t - 1)).exp())):
        with pytest.raises(ValueError, match='no verdict'):
            phi.positive_definiteness(32768)
    with pytest.raises(ValueError, match='constant at q = 32768'):
        null_band(kernel, 32768, 10)
    assert kernel.positive_definiteness(1024, 4)  # 1e-64, and still known
    whole = (kernel + RieszKernel()).coefficients(32768, 4)
    torch.testing.assert_close(whole, RieszKernel().coefficients(32768, 4))


@pytest.mark.parametrize('q', [2, 64, 1024, 32768])
def test_verdicts_of_kinked_kernels(q):
    report = Profile(torch.abs).positive_definiteness(q, 6)
    assert (report.negative, report.vanishing) == ([4], [1, 3, 5])
    report = Profile(torch.relu).positive_definiteness(q, 8)
    assert (report.negative, report.vanishing) == ([4, 8], [3, 5, 7])  # b_1 = 1/2 counts beside b_8 = -1e12
    assert Profile(lambda t: t.abs().exp() * 0 + t.exp()).positive_definiteness(q, 6)


def test_a_sum_whose_parts_cancel_is_taken_as_a_whole():
    whole = Profile(torch.abs) + Profile(lambda t: t.exp() - t.abs())
    torch.testing.assert_close(
        whole.coefficients(1024, 6), quadrature_coefficients(torch.exp, 1024, 6), rtol=1e-6, atol=1e-9
    )
    assert whole.positive_definiteness(1024, 6)


def test_high_degrees_need_no_high_derivatives():
    b = quadrature_coefficients(lambda t: (2.25 - 2 * t).rsqrt(), 64, 20)
    t = torch.linspace(-0.4, 0.4, 41, dtype=torch.float64)
    total = sum(c * p for c, p in zip(b, legendre_polynomials(20, 64, t), strict=True))
    torch.testing.assert_close(total, (2.25 - 2 * t).rsqrt(), rtol=1e-6, atol=0)


@pytest.mark.parametrize('q', [2, 16, 1024])
def test_variance_and_mimic_of_a_kinked_kernel(q):
    kernel = Profile(torch.abs)
    mean_square, mean = 1 / q, float(power(1, q, 0))
    assert profile_variance(kernel, q) == pytest.approx(mean_square - mean**2, rel=1e-9)
    assert mimic(kernel, q, 2).weights == pytest.approx((0, float(power(1, q, 2))))
    t, w = adapted_quadrature(torch.abs, q)
    assert float((w * t.abs()).sum()) == pytest.approx(mean, rel=1e-9)


def test_nodes_are_the_callers_own():
    before = quadrature_coefficients(torch.exp, 64, 3)
    for made in gauss_gegenbauer(64):
        made.zero_()
    assert float(gauss_gegenbauer(64)[1].sum()) == pytest.approx(1)
    quadrature_coefficients(lambda t: t.mul_(2).exp_(), 64, 3)
    assert torch.equal(quadrature_coefficients(torch.exp, 64, 3), before)


class TestKinkedKernel(KernelContract):
    """The contract holds for kernels with kinks."""

    kernel = Profile(torch.abs)
    positive_definite = False


class TestHingePlusSmooth(KernelContract):
    kernel = Profile(lambda t: (t - 0.1).relu()) + 2 * RBFKernel(1.0) + LegendreKernel((1.0, 40.0))
    dimensions = (3, 16)
    positive_definite = False
