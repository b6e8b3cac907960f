"""MMD^2 to N(0, I): golden figures, what a kernel's expectations are, ranks, collapsed rows, null bands, and identities."""

import math

import numpy as np
import pytest
import torch
from host_reads import HostReads
from multiprocess import run_processes

from mmkernel.kernels import (
    EppsPulleyKernel,
    EppsPulleyKnotsKernel,
    GaussianMixtureKernel,
    HeatKernel,
    InverseMultiquadricKernel,
    LaplaceKernel,
    PolynomialKernel,
    RadialKernel,
    RBFKernel,
    RieszKernel,
    layouts,
    mmd2_to_normal,
    null_band_to_normal,
)
from mmkernel.kernels.nodes import mean_over_chi_square
from mmkernel.losses.sliced import draw_slices, sliced

DTYPES = {torch.float64: (1e-9, 1e-8), torch.float32: (1e-5, 1e-4)}
RADIAL = [
    RBFKernel('0.5/q'),
    GaussianMixtureKernel((0.2, '1/q', '0.1/q'), (1.0, 2.0, 0.5)),
    InverseMultiquadricKernel('q'),
    InverseMultiquadricKernel(1.0, exponent=1.2),
    EppsPulleyKernel(),
    EppsPulleyKnotsKernel(),
    EppsPulleyKnotsKernel(10, 2.0),
    RieszKernel(),
    RieszKernel(0.5),
    RieszKernel(2.0),
    LaplaceKernel('1/sqrt(q)'),
    InverseMultiquadricKernel('q') + 0.5 * RieszKernel(),
]
POLYNOMIALS = [PolynomialKernel(2), PolynomialKernel(2, 1.0), PolynomialKernel(3, 0.5), 2 * PolynomialKernel(4, 0.3)]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def leaf(z):
    return z.detach().clone().requires_grad_()


def textbook(z, kernel, statistic='V'):
    """All pairs at once, by autograd; the diagonal of a distance is left out, where its root has no slope."""
    n, q = z.shape
    off = ~torch.eye(n, dtype=torch.bool)
    if isinstance(kernel, RadialKernel):
        pairs = kernel.f((z[:, None] - z[None]).square().sum(-1)[off], q).sum()
        diagonal = n * kernel.value_at_zero(q)
    else:
        gram = kernel.phi(z @ z.T, q)
        pairs, diagonal = gram[off].sum(), gram.diagonal().sum()
    energy = (pairs + diagonal) / n**2 if statistic == 'V' else pairs / (n * (n - 1))
    return energy - 2 * kernel.target(z.square().sum(-1), q).mean() + kernel.target_constant(q)


@pytest.mark.parametrize(
    'case, kernel',
    [
        ('radial_sigreg_inf_q16', EppsPulleyKernel()),
        ('radial_sigreg_17knots_q16', EppsPulleyKnotsKernel()),
        ('radial_energy_q16', RieszKernel(constant=0.0)),
        ('radial_rbf_q16', RBFKernel('1/q')),
    ],
)
def test_profiles_and_expectations_of_golden_figures(golden, case, kernel):
    g = golden(case)
    r2 = torch.from_numpy(g['in_r']).square()
    np.testing.assert_allclose(kernel.f(r2, 16), g['out_k'], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(kernel.target(r2, 16), g['out_target'], rtol=1e-12, atol=1e-13)
    assert kernel.target_constant(16) == pytest.approx(float(g['out_const']), rel=1e-13)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize(
    'case, kernel', [('mmd2_sigreg_inf_n14_q6', EppsPulleyKernel()), ('mmd2_energy_n14_q6', RieszKernel())]
)
def test_mmd2_of_golden_figures(golden, case, kernel, dtype, device):
    g, (of_loss, of_gradient) = golden(case), DTYPES[dtype]
    z = torch.from_numpy(g['in_u']).to(device, dtype).requires_grad_()
    value = mmd2_to_normal(z, kernel)
    value.backward()
    assert value.item() == pytest.approx(float(g['out_loss']), rel=of_loss)
    assert mmd2_to_normal(z, kernel, 'U').item() == pytest.approx(float(g['out_ustat']), rel=10 * of_loss)
    expected = g['grad_u']
    assert np.abs(z.grad.cpu().numpy() - expected).max() <= of_gradient * np.abs(expected).max()


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_baringhaus_henze_of_golden_figures(golden, dtype, device):
    g, (of_loss, of_gradient) = golden('bhep_b0.5_n24_q6'), DTYPES[dtype]
    z = torch.from_numpy(g['in_x']).to(device, dtype).requires_grad_()
    value = mmd2_to_normal(z, RBFKernel(0.5**2 / 2))
    value.backward()
    assert value.item() == pytest.approx(float(g['out_loss']), rel=of_loss)
    assert np.abs(z.grad.cpu().numpy() - g['grad_x']).max() <= of_gradient * np.abs(g['grad_x']).max()


@pytest.mark.parametrize('q', [2, 3, 16, 512, 4096])
@pytest.mark.parametrize('kernel', RADIAL + POLYNOMIALS, ids=str)
def test_the_constant_is_the_mean_of_the_target(kernel, q):
    mean = mean_over_chi_square(lambda rho: kernel.target(rho, q), q)
    assert mean == pytest.approx(kernel.target_constant(q), rel=2e-10)


@pytest.mark.parametrize('q', [2, 7, 64])
@pytest.mark.parametrize('kernel', RADIAL, ids=str)
def test_the_target_is_the_mean_of_the_kernel(kernel, q):
    """Over the part of Z along u, and the squared length of the rest, which is chi-square."""
    x, w = np.polynomial.hermite_e.hermegauss(120)
    x, w = torch.from_numpy(x), torch.from_numpy(w / w.sum())
    for length in (0.0, 0.5 * math.sqrt(q), 2 * math.sqrt(q)):
        expected = 0.0
        for y, weight in zip(x, w, strict=True):
            along = (length - y) ** 2

            def of_the_rest(rho, along=along):
                return kernel.in_space(-rho / 2, along, 0 * along, q)[0]  # r^2 = rho + along

            expected += float(weight) * mean_over_chi_square(of_the_rest, q - 1)
        rho = torch.tensor(length**2, dtype=torch.float64)
        tolerance = {2: 1e-3, 7: 1e-8, 64: 1e-9}[q]  # few dimensions feel a kink at r = 0
        assert float(kernel.target(rho, q)) == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize('statistic', ['V', 'U'])
@pytest.mark.parametrize('kernel', [k for k in RADIAL if isinstance(k, RadialKernel)] + POLYNOMIALS, ids=str)
def test_value_and_gradient_are_those_of_the_formula(kernel, statistic):
    for n, q in ((9, 4), (5, 12)):  # moments of a polynomial, where q < n, and pairs
        ours, theirs = leaf(1.3 * normal(n, q) + 0.2), leaf(1.3 * normal(n, q) + 0.2)
        found, expected = mmd2_to_normal(ours, kernel, statistic), textbook(theirs, kernel, statistic)
        found.backward()
        expected.backward()
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('kernel', RADIAL[:8], ids=str)
def test_slopes_of_expectations(kernel):
    rho = torch.tensor([0.0, 0.1, 5.0, 40.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: kernel.target(r, 8), (rho + 1e-3,))
    (slope,) = torch.autograd.grad(kernel.target(rho, 8).sum(), rho)
    assert torch.isfinite(slope).all()


def of_rank(rank, world_size, layout):
    z = normal(12, 10).chunk(world_size)[rank]
    found = []
    for kernel in (InverseMultiquadricKernel('q'), RieszKernel(), PolynomialKernel(2), PolynomialKernel(3)):
        for statistic in ('V', 'U'):
            own = leaf(z)
            value = mmd2_to_normal(own, kernel, statistic, layout=layout)
            value.backward()
            found.append((value.detach(), own.grad / world_size))
    return found


@pytest.mark.parametrize('world_size, layout', [(2, 'rows'), (2, 'columns'), (4, 'rows')])
def test_ranks_equal_one_process(world_size, layout):
    expected = of_rank(0, 1, 'auto')
    for rank, found in enumerate(run_processes(of_rank, world_size, layout)):
        for (value, gradient), (whole, of_whole) in zip(found, expected, strict=True):
            assert float((value - whole).abs()) <= 1e-12 * float(whole.abs())
            assert float((gradient - of_whole.chunk(world_size)[rank]).norm()) <= 1e-12 * float(of_whole.norm())


@pytest.mark.parametrize('kernel', [EppsPulleyKernel(), RieszKernel(), PolynomialKernel(3)], ids=str)
def test_many_blocks_equal_one(monkeypatch, kernel):
    results = []
    for entries in (20, 2**21):
        monkeypatch.setitem(layouts.BLOCK_ENTRIES, 'cpu', entries)
        z = leaf(normal(11, 12))
        value = mmd2_to_normal(z, kernel, 'U')
        value.backward()
        results.append((value.detach(), z.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize('kernel', RADIAL + POLYNOMIALS, ids=str)
@pytest.mark.parametrize(
    'z',
    [
        torch.zeros(6, 4),
        torch.ones(6, 4),
        100 * torch.ones(6, 4),
        normal(3, 4).float().repeat(2, 1),
        1e-6 * normal(6, 4),
    ],
)
def test_equal_and_collapsed_rows_stay_finite(kernel, dtype, z):
    for statistic in ('V', 'U'):
        rows = leaf(z.to(dtype))
        value = mmd2_to_normal(rows, kernel, statistic)
        value.backward()
        assert value.dtype == layouts.promoted(rows).dtype
        assert torch.isfinite(value)
        assert torch.isfinite(rows.grad).all()


def test_one_point_does_not_push_itself():
    """float32: what is left of equal rows that lie far out is the pull of the target, the same on each."""
    for kernel in (RieszKernel(), InverseMultiquadricKernel('q')):
        z = leaf((normal(1, 64) * 3).float().repeat(16, 1))
        mmd2_to_normal(z, kernel).backward()
        rho = leaf(z[0].square().sum())
        kernel.target(rho, 64).backward()
        expected = -2 * rho.grad * 2 * z[0] / 16
        torch.testing.assert_close(
            z.grad, expected.detach().expand(16, 64), rtol=1e-4, atol=1e-6 * float(expected.abs().max())
        )


def test_what_is_wrong_is_said():
    z = normal(4, 3)
    with pytest.raises(ValueError, match='HeatKernel is a kernel of the sphere'):
        mmd2_to_normal(z, RBFKernel() + HeatKernel(0.1))
    with pytest.raises(ValueError, match='ProductKernel is a kernel of the sphere'):
        mmd2_to_normal(z, RBFKernel() * RBFKernel())
    with pytest.raises(ValueError, match='batch of 1 image'):
        mmd2_to_normal(z[:1], RBFKernel())
    with pytest.raises(ValueError, match='q >= 2, got q = 1'):
        mmd2_to_normal(z[:, :1], EppsPulleyKernel())
    with pytest.raises(ValueError, match='One view at a time'):
        mmd2_to_normal(z[None], RBFKernel())
    with pytest.raises(ValueError, match="statistic is 'V' or 'U'"):
        mmd2_to_normal(z, RBFKernel(), 'W')
    with pytest.raises(ValueError, match=r'mixture\(q\), or target'):
        mmd2_to_normal(z, Cauchy())
    for kernel, options in (
        (RBFKernel, dict(scale=0)),
        (RBFKernel, dict(scale='q*2')),
        (RBFKernel, dict(scale=2.0, radius='-1*q')),
        (InverseMultiquadricKernel, dict(c=-1)),
        (InverseMultiquadricKernel, dict(exponent=0)),
        (GaussianMixtureKernel, dict(scales=())),
        (GaussianMixtureKernel, dict(scales=(1.0, 2.0), weights=(1.0,))),
        (EppsPulleyKnotsKernel, dict(knots=1)),
        (EppsPulleyKnotsKernel, dict(t_max=0.0)),
    ):
        with pytest.raises(ValueError, match=f'{kernel.__name__}'):
            kernel(**options)
    assert mmd2_to_normal(z * torch.nan, RBFKernel()).isnan()


class Cauchy(RadialKernel):
    def f(self, r2, q):
        return 1 / (1 + r2 / q)


def test_a_radial_kernel_of_ones_own_is_a_kernel_of_every_sphere():
    t = torch.linspace(-1, 1, 9, dtype=torch.float64)
    expected = InverseMultiquadricKernel('q', exponent=1.0, radius='sqrt(q)')
    ours = Cauchy().restrict('sqrt(q)')
    torch.testing.assert_close(ours.phi(t, 12), expected.phi(t, 12))
    torch.testing.assert_close(ours.dphi(t, 12), expected.dphi(t, 12))
    torch.testing.assert_close(ours.coefficients(12, 4), expected.coefficients(12, 4), rtol=1e-6, atol=0)
    assert Cauchy().radius == 1.0


@pytest.mark.parametrize('kernel, level', [(EppsPulleyKernel(), 1.0594), (EppsPulleyKnotsKernel(), 1.0525)], ids=str)
def test_null_level(kernel, level):
    for q in (2, 16, 512):
        assert 50 * null_band_to_normal(kernel, q, 50, 'V').mean == pytest.approx(level, abs=5e-5)


@pytest.mark.parametrize(
    'kernel', [EppsPulleyKernel(), RieszKernel(), RBFKernel('1/q') + InverseMultiquadricKernel('q')], ids=str
)
def test_null_band_holds_for_normal_rows(kernel):
    n, q, draws = 40, 8, 300
    for statistic in ('U', 'V'):
        found = torch.stack([mmd2_to_normal(normal(n, q, seed=s), kernel, statistic) for s in range(draws)])
        band = null_band_to_normal(kernel, q, n, statistic)
        assert abs(float(found.mean()) - band.mean) < 4 * band.sd / math.sqrt(draws)
        assert float(found.std()) == pytest.approx(band.sd, rel=0.25)
    with pytest.raises(ValueError, match='radial kernels alone'):
        null_band_to_normal(PolynomialKernel(2), q, n)


@pytest.mark.parametrize('q, n', [(8, 48), (64, 24)])
def test_a_hundred_thousand_slices_come_within_a_percent(q, n):
    z = 1.2 * normal(n, q, seed=3) + 0.3
    directions = torch.nn.functional.normalize(normal(q, 100_000, seed=4), dim=0)
    total = torch.zeros((), dtype=torch.float64)
    for slices in directions.split(4096, dim=1):
        x, t = z @ slices, torch.linspace(0, 3, 17, dtype=torch.float64)
        for k, knot in enumerate(t):
            e, weight = math.exp(-(float(knot) ** 2) / 2), float(t[1]) * (1.0 if k in (0, 16) else 2.0)
            error = ((knot * x).cos().mean(0) - e).square() + (knot * x).sin().mean(0).square()
            total += n * weight * e * error.sum()
    assert n * float(mmd2_to_normal(z, EppsPulleyKnotsKernel())) == pytest.approx(float(total) / 1e5, rel=0.01)
    assert n * float(mmd2_to_normal(z, EppsPulleyKernel())) == pytest.approx(float(total) / 1e5, rel=0.015)


def test_the_mean_over_slices_of_the_package_is_the_kernel_by_knots():
    z = normal(20, 6, seed=5) * 1.5
    slices = draw_slices(6, 40_000, torch.Generator().manual_seed(0), z)
    assert 20 * float(mmd2_to_normal(z, EppsPulleyKnotsKernel())) == pytest.approx(float(sliced(z, slices)), rel=0.01)


def test_sliced_cramer_is_the_energy_distance():
    """The mean of int (F_N - Phi)^2 dx over slices is c_q/2 (2 E||u-Z|| - E||u-u'|| - E||Z-Z'||), c_q = E|a_1|."""
    z = 1.3 * normal(30, 8, seed=6) + 0.2
    slices = draw_slices(8, 40_000, torch.Generator().manual_seed(1), z)
    c = math.gamma(4) / (math.sqrt(math.pi) * math.gamma(4.5))
    expected = c / 2 * float(mmd2_to_normal(z, RieszKernel()))
    assert float(sliced(z, slices, 'cramer')) == pytest.approx(expected, rel=0.01)


def test_spectral_contrastive_is_alignment_and_a_quadratic_mmd(golden):
    """-2 mean x_i.y_i + mean_ij (x_i.y_j)^2 = mean ||x-y||^2 + ||(C_x + C_y)/2 - I||^2 - q - ||C_x - C_y||^2 / 4."""
    g = golden('spectral_mu1_n20_q8')
    x, y = (torch.from_numpy(g[name]) for name in ('in_x', 'in_y'))
    spectral = -2 * (x * y).sum(-1).mean() + (x @ y.T).square().mean()
    both = mmd2_to_normal(torch.cat([x, y]), PolynomialKernel(2))  # ||(C_x + C_y)/2 - I||^2
    apart = (x.T @ x - y.T @ y).square().sum() / 20**2 / 4
    torch.testing.assert_close(spectral, (x - y).square().sum(-1).mean() + both - 8 - apart, rtol=1e-12, atol=1e-12)


def test_slopes_at_collapse():
    """d MMD^2 / d sigma of sigma Z: of a smooth kernel it vanishes with sigma, of a distance it does not."""
    z = normal(400, 64, seed=7)
    mean = math.sqrt(2) * math.gamma(32.5) / math.gamma(32)  # E||Z||
    for kernel, by, slopes in (
        (EppsPulleyKernel(), 1.0, {0.001: -0.003, 0.01: -0.032, 0.1: -0.31, 0.5: -0.62}),
        (RieszKernel(), mean, {0.001: -1.41, 0.01: -1.39, 0.1: -1.21, 0.5: -0.51}),
    ):
        for sigma, expected in slopes.items():
            s = torch.tensor(sigma, dtype=torch.float64, requires_grad=True)
            mmd2_to_normal(s * z, kernel).backward()
            assert float(s.grad) / by == pytest.approx(expected, rel=0.06, abs=0.001)


@pytest.mark.parametrize('kernel', RADIAL + POLYNOMIALS, ids=str)
def test_nothing_is_read_back_after_the_first_step(kernel):
    z = leaf(normal(12, 6).float())
    mmd2_to_normal(z, kernel).backward()  # tables are made and sent once
    with HostReads([z]) as meter:
        for statistic in ('V', 'U'):
            mmd2_to_normal(z, kernel, statistic).backward()
    assert not meter.reads
