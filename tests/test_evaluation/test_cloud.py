import math

import pytest
import torch
import torch.nn.functional as F

from mmkernel.evaluation import covariance_spectrum, effective_rank
from mmkernel.evaluation.cloud import DEGREES, cloud_statistics
from mmkernel.kernels import LegendreKernel, RBFKernel, kernel_energy, legendre_polynomial
from mmkernel.losses.alignment import uniformity


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
    clouds = [cloud_statistics(cloud(40, 6, seed)) for seed in range(200)]
    for l in range(len(DEGREES)):
        values = torch.tensor([found.moments[l] for found in clouds])
        assert float(values.mean()) == pytest.approx(0, abs=4 * clouds[0].moments_sd[l] / math.sqrt(200))
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
    with pytest.raises(ValueError, match='at least 2 images'):
        cloud_statistics(torch.ones(1, 4))
    with pytest.raises(ValueError, match='NaN or infinity'):
        cloud_statistics(torch.full((4, 4), torch.nan))
    with pytest.raises(ValueError, match='two views of shapes'):
        cloud_statistics(cloud(), views=(cloud(), cloud(100)))


def test_a_constant_dimension_is_no_obstacle():
    z = cloud()
    z[:, 3] = 0
    assert cloud_statistics(z).dimensions <= 15
