"""The statistics of a cloud against their definitions and against simulation: of the doctor, of monitors, of the spectrum."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from multiprocess import run_processes

from mmkernel.evaluation import (
    CRITERIA,
    YARDSTICK,
    cloud_statistics,
    covariance_spectrum,
    criterion_score,
    effective_rank,
    embedding_statistics,
    rankme,
)
from mmkernel.evaluation.cloud import DEGREES
from mmkernel.kernels import (
    Kernel,
    LegendreKernel,
    RBFKernel,
    kernel_energy,
    legendre_polynomial,
    mmd2_to_uniform,
    null_band,
)
from mmkernel.losses.alignment import alignment, uniformity


def cloud(n=200, q=16, seed=0):
    return torch.randn(n, q, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_uniform_points_lie_inside_their_bands():
    found = cloud_statistics(cloud(2000, 16), LegendreKernel((1.0, 40.0, 40.0)))
    assert found.std == pytest.approx(1, abs=0.02)
    assert found.rank == pytest.approx(16, rel=0.02)
    assert found.dimensions == 16
    assert found.resultant < 0.05
    for moment, sd in zip(found.moments, found.moments_sd, strict=True):
        assert abs(moment) < 4 * sd
    assert abs(found.mmd2) < 4 * found.mmd2_sd
    assert found.mmd2_point == pytest.approx(81)
    assert found.alignment is None
    assert found.retrieval is None


def test_moments_and_their_null_deviation_against_simulation():
    clouds = [cloud_statistics(cloud(40, 6, seed)) for seed in range(100)]
    for l in range(len(DEGREES)):
        values = torch.tensor([found.moments[l] for found in clouds])
        assert float(values.mean()) == pytest.approx(0, abs=4 * clouds[0].moments_sd[l] / math.sqrt(100))
        assert float(values.std()) == pytest.approx(clouds[0].moments_sd[l], rel=0.2)


def test_moments_are_means_of_legendre_polynomials():
    z = cloud(30, 5)
    u = F.normalize(z)
    t = (u @ u.T)[~torch.eye(30, dtype=torch.bool)]
    found = cloud_statistics(z, RBFKernel(1.0))
    for l, moment in zip(DEGREES, found.moments, strict=True):
        assert moment == pytest.approx(float(legendre_polynomial(l, 5, t).mean()))
    b0 = float(RBFKernel(1.0).coefficients(5, 0)[0])
    assert found.mmd2 == pytest.approx(float(kernel_energy(z, RBFKernel(1.0), 'U')) - b0)
    assert found.rank == pytest.approx(effective_rank(covariance_spectrum(z)))


def test_a_point_and_a_line():
    point = cloud_statistics(torch.ones(50, 8) + 1e-4 * cloud(50, 8))
    assert point.std < 1e-3
    assert point.mmd2_share == pytest.approx(1, abs=1e-3)
    line = cloud_statistics(torch.randn(50, 1) * torch.ones(1, 8))
    assert line.rank < 1.01
    assert line.dimensions == 1
    assert line.moments[1] == pytest.approx(1)


def test_rows_without_a_direction_are_one_point():
    """Not points at right angles to each other, which would look more even than uniform."""
    found = cloud_statistics(torch.zeros(50, 8))
    assert (found.std, found.rank, found.dimensions, found.uniformity) == (0, 1, 0, 0)
    assert found.mmd2 == pytest.approx(found.mmd2_point)
    some = cloud()
    some[:40] = 0
    assert cloud_statistics(some).mmd2 > cloud_statistics(cloud()).mmd2 + 1


@pytest.mark.parametrize('scale', [1e-20, 1e20])
def test_units_do_not_matter(scale):
    z = cloud().float()
    assert cloud_statistics(scale * z).moments == pytest.approx(cloud_statistics(z).moments, abs=1e-6)


def test_two_points():
    found = cloud_statistics(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), LegendreKernel((0.0, 1.0)))
    assert found.moments[:2] == pytest.approx((0, -1))  # at a right angle: cos 90, cos 180
    assert found.mmd2 == pytest.approx(-1)
    assert found.mmd2_sd == pytest.approx(0.5**0.5)


def test_blocks_of_rows(monkeypatch):
    z = cloud(50, 6)
    whole = cloud_statistics(z)
    monkeypatch.setattr('mmkernel.evaluation.cloud.BLOCK', 16)
    assert cloud_statistics(z).moments == pytest.approx(whole.moments)
    assert whole.uniformity == pytest.approx(float(uniformity(z, normalize=True)))


def test_one_process_may_look_alone(monkeypatch):
    """A hook of process 0 must not wait for the others, who do not come."""
    monkeypatch.setattr('mmkernel.distributed.world_size', lambda: 2)
    monkeypatch.setattr('torch.distributed.is_initialized', lambda: True)
    z = cloud(30)
    assert cloud_statistics(z, views=(z, z)).retrieval == 1


def test_views():
    z = cloud(300)
    same = cloud_statistics(z, views=(z, z))
    assert same.alignment == pytest.approx(0)
    assert same.retrieval == 1
    strangers = cloud_statistics(z, views=(z, cloud(300, seed=1)))
    assert strangers.alignment == pytest.approx(2, rel=0.1)
    assert strangers.retrieval < 0.05
    ones = torch.ones(300, 16)
    assert cloud_statistics(z, views=(ones, ones)).retrieval == 0  # a tie finds nothing


def test_retrieval_does_not_depend_on_the_number_of_images():
    z = cloud(1024, 4)
    other = z + 0.3 * cloud(1024, 4, seed=1)
    few = cloud_statistics(z[:256], views=(z[:256], other[:256])).retrieval
    assert cloud_statistics(z, views=(z, other)).retrieval == pytest.approx(few, abs=0.08)


def test_bad_input():
    for statistics in (cloud_statistics, embedding_statistics):
        with pytest.raises(ValueError, match='expected at least 2 images'):
            statistics(torch.ones(1, 4))
    with pytest.raises(ValueError, match='NaN or infinity'):
        cloud_statistics(torch.full((4, 4), torch.nan))
    with pytest.raises(ValueError, match='two views of shapes'):
        cloud_statistics(cloud(), views=(cloud(), cloud(100)))


def test_a_constant_dimension_is_no_obstacle():
    z = cloud()
    z[:, 3] = 0
    assert cloud_statistics(z).dimensions <= 15


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(60, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    return z, z + 0.3 * torch.randn(60, 12, generator=generator)


@pytest.mark.parametrize('kernel', [YARDSTICK, RBFKernel(2.0)], ids=str)
def test_against_the_definitions(pair, kernel):
    z, partner = pair
    found = embedding_statistics(z, partner, kernel)
    u, v = F.normalize(z, dim=1), F.normalize(partner, dim=1)
    assert found['mmd2'] == pytest.approx(float(mmd2_to_uniform(z, kernel, 'U')), rel=1e-4, abs=1e-6)
    band = null_band(kernel, 12, 60)
    assert found['mmd2_sd'] == band.sd
    assert found['mmd2_score'] == pytest.approx(found['mmd2'] / band.sd)
    assert found['uniformity'] == pytest.approx(float(uniformity(u)), rel=1e-5)
    assert found['uniformity'] == pytest.approx(float(kernel_energy(z, RBFKernel(2.0), 'U').log()), rel=1e-5)
    assert found['alignment'] == pytest.approx(float(alignment(u, v)), rel=1e-5)
    assert found['rank'] == pytest.approx(effective_rank(covariance_spectrum(z)), rel=1e-4)
    assert found['std'] == pytest.approx(math.sqrt(12) * float(u.std(0, correction=0).mean()), rel=1e-5)
    assert cloud_statistics(z, kernel, (z, partner)).logged() == pytest.approx(found, rel=1e-4, abs=1e-6)


WORDS = ('std', 'rank', 'rankme', 'top_share', 'uniformity', 'mmd2', 'mmd2_sd')  # one word each, wherever it is printed


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(2, 40),
    st.integers(2, 12),
    st.sampled_from(['round', 'flat', 'shifted', 'repeated', 'zeros']),
    st.integers(0, 99),
)
def test_monitors_and_doctor_measure_the_same(rows, width, shape, seed):
    z = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if shape == 'flat':
        z[:, 1:] *= 1e-3
    elif shape == 'shifted':
        z += 5
    elif shape == 'repeated':
        z = z[:1].repeat(rows, 1)
    elif shape == 'zeros':
        z[: rows // 2] = 0
    found, doctor = embedding_statistics(z, -z), cloud_statistics(z, views=(z, -z))
    assert {word: found[word] for word in WORDS} == {word: getattr(doctor, word) for word in WORDS}
    assert found['alignment'] == doctor.alignment
    assert found == pytest.approx(doctor.logged(), nan_ok=True)
    for word, value in embedding_statistics(z.float()).items():
        assert value == pytest.approx(found[word], rel=1e-3, abs=1e-3)


def test_uniform_points_lie_in_their_band_and_a_point_does_not():
    z = torch.randn(500, 64, generator=torch.Generator().manual_seed(1))
    found = embedding_statistics(z)
    assert abs(found['mmd2_score']) < 4
    assert found['std'] == pytest.approx(1, abs=0.02)
    assert found['uniformity'] == pytest.approx(math.log(float(RBFKernel(2.0).coefficients(64, 0)[0])), abs=0.05)
    assert 'alignment' not in found
    collapsed = embedding_statistics(torch.ones(500, 64) + 1e-4 * z)
    assert collapsed['mmd2_score'] > 1000
    assert collapsed['std'] < 0.01
    assert collapsed['uniformity'] == pytest.approx(0, abs=1e-4)
    line = embedding_statistics(z[:, :1] * torch.ones(64) + 1e-4 * z)
    assert (line['rank'], line['top_share']) == (pytest.approx(1, abs=0.01), pytest.approx(1, abs=0.01))


@pytest.mark.parametrize('dimensions', [1, 5, 20])
def test_effective_rank_of_simulated_clouds(dimensions):
    """Equal variance in ``dimensions`` of 32 directions: that many, less what 4000 points leave uncertain."""
    z = torch.zeros(4000, 32)
    z[:, :dimensions] = torch.randn(4000, dimensions, generator=torch.Generator().manual_seed(2))
    rank = effective_rank(covariance_spectrum(z, normalize=False))
    assert rank == pytest.approx(dimensions, rel=0.01)


def test_only_so_many_rows_are_looked_at(pair):
    z, partner = pair
    assert embedding_statistics(z, partner, max_rows=20) == embedding_statistics(z[:20], partner[:20])


def test_half_precision_and_no_graph(pair):
    z = pair[0].requires_grad_()
    assert embedding_statistics(z.bfloat16())['rank'] == pytest.approx(embedding_statistics(z)['rank'], rel=0.01)
    assert z.grad is None


class Pole(Kernel):
    """phi(t) = -log(1 - t)."""

    def phi(self, t, q):
        return -torch.log1p(-t)


def test_a_kernel_that_is_infinite_at_one_leaves_the_diagonal_out(pair):
    assert math.isfinite(embedding_statistics(pair[0], kernel=Pole())['mmd2_score'])


def _on_a_rank(rank, world_size, z, partner):
    rows = slice(rank * 30, rank * 30 + 30)
    return embedding_statistics(z[rows], partner[rows])


def test_two_processes_see_the_union(pair):
    whole = embedding_statistics(*pair)
    for found in run_processes(_on_a_rank, 2, *pair):
        assert found == pytest.approx(whole, rel=1e-5)


def test_a_kernel_without_a_known_null_is_not_measured():
    class Margin(Kernel):
        def phi(self, t, q):
            return (t - 0.9).relu()  # 0 wherever pairs of uniform points lie at q = 8192

    with pytest.warns(UserWarning, match='MMD.2 to uniform is not measured: .*constant at q = 8192'):
        found = embedding_statistics(torch.randn(16, 8192), kernel=Margin())
    assert all(math.isnan(found[word]) for word in ('mmd2', 'mmd2_sd', 'mmd2_score'))
    assert found['std'] > 0.5


def test_uniform_points_have_a_flat_spectrum():
    z = torch.randn(20000, 8, generator=torch.Generator().manual_seed(0))
    values = covariance_spectrum(z)
    torch.testing.assert_close(values, torch.full((8,), 1 / 8, dtype=torch.float64), rtol=0.05, atol=0)
    assert effective_rank(values) == pytest.approx(8, rel=0.01)


@pytest.mark.parametrize('shape', [(40, 12), (12, 40)])
def test_either_side_gives_the_eigenvalues_of_the_covariance(shape):
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.linalg.eigvalsh(torch.cov(F.normalize(z).T, correction=0)).flip(0)
    torch.testing.assert_close(covariance_spectrum(z), expected, atol=1e-12, rtol=0)


def test_collapse_shows():
    line = torch.linspace(-1, 1, 50)[:, None] * torch.ones(1, 6)
    values = covariance_spectrum(line)
    assert (values[1:] < 1e-10).all()
    assert effective_rank(values) == pytest.approx(1, abs=1e-3)
    assert effective_rank(covariance_spectrum(torch.ones(5, 3))) < 1 + 1e-9  # a point


def test_without_normalisation():
    z = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(covariance_spectrum(2 * z, normalize=False), 4 * covariance_spectrum(z, normalize=False))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_rounding_is_no_dimension(dtype):
    """Embeddings of one direction and many lengths differ by rounding once they are normalised."""
    generator = torch.Generator().manual_seed(0)
    ray = (0.1 + torch.rand(100, 1, generator=generator)) * torch.randn(32, generator=generator)
    assert effective_rank(covariance_spectrum(ray.to(dtype))) == 1
    shaken = ray / ray.norm(dim=1, keepdim=True) + 1e-4 * torch.randn(100, 32, generator=generator)
    assert effective_rank(covariance_spectrum(shaken.to(dtype))) > 20


@pytest.mark.parametrize('scale', [1e-30, 1e-14, 1e20])
def test_units_do_not_matter_to_the_spectrum(scale):
    z = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(covariance_spectrum(scale * z), covariance_spectrum(z), atol=1e-7, rtol=1e-5)


def test_one_row_and_rows_of_zeros():
    assert effective_rank(covariance_spectrum(torch.randn(1, 5))) == 1
    assert effective_rank(covariance_spectrum(torch.zeros(9, 5))) == 1


def by_formula(z):
    """Garrido et al., ICML 2023, equation 1."""
    sigma = torch.linalg.svdvals(z.double())
    p = sigma / sigma.sum() + 1e-7
    return float((-(p * p.log()).sum()).exp())


@pytest.mark.parametrize('shape', [(200, 12), (12, 40), (30, 30)])
@pytest.mark.parametrize('shift, scale', [(0, 1), (3, 1), (0, 1e-18), (1, 1e18)])
def test_rankme_is_of_singular_values_of_raw_embeddings(shape, shift, scale):
    z = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) + shift) * scale
    assert rankme(z) == pytest.approx(by_formula(z), rel=1e-6)
    assert embedding_statistics(z)['rankme'] == cloud_statistics(z).rankme == pytest.approx(rankme(z))


def test_two_measures_that_order_two_clouds_differently():
    generator = torch.Generator().manual_seed(0)
    few = torch.cat([torch.randn(2048, 60, generator=generator), torch.zeros(2048, 68)], 1)
    many = torch.cat([torch.randn(2048, 30, generator=generator), 0.25 * torch.randn(2048, 98, generator=generator)], 1)
    first, second = embedding_statistics(few, max_rows=2048), embedding_statistics(many, max_rows=2048)
    assert (first['rankme'], second['rankme']) == (pytest.approx(by_formula(few)), pytest.approx(by_formula(many)))
    assert criterion_score('rankme', first) < criterion_score('rankme', second)
    assert criterion_score('rank', first) > criterion_score('rank', second)
    assert [name for name, text in CRITERIA.items() if 'rankme' in text.lower()] == ['rankme']


def test_rankme_of_a_line_and_of_nothing():
    line = torch.linspace(-1, 1, 50)[:, None] @ torch.ones(1, 20)
    assert rankme(line) == pytest.approx(1, abs=1e-3)
    assert rankme(torch.zeros(50, 20)) == pytest.approx(1, abs=1e-3)
