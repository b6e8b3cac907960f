"""The statistics of a cloud, one Gram matrix for all, against the definitions; effective rank against simulation."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from multiprocess import run_processes

from mmkernel.evaluation import (
    YARDSTICK,
    cloud_statistics,
    covariance_spectrum,
    effective_rank,
    embedding_statistics,
)
from mmkernel.kernels import Kernel, RBFKernel, kernel_energy, mmd2_to_uniform, null_band
from mmkernel.losses.alignment import alignment, uniformity


@pytest.fixture
def cloud():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(60, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    return z, z + 0.3 * torch.randn(60, 12, generator=generator)


@pytest.mark.parametrize('kernel', [YARDSTICK, RBFKernel(2.0)], ids=str)
def test_against_the_definitions(cloud, kernel):
    z, partner = cloud
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
    found, cloud = embedding_statistics(z, -z), cloud_statistics(z, views=(z, -z))
    assert {word: found[word] for word in WORDS} == {word: getattr(cloud, word) for word in WORDS}
    assert found['alignment'] == cloud.alignment
    assert found == pytest.approx(cloud.logged(), nan_ok=True)
    for word, value in embedding_statistics(z.float()).items():
        assert value == pytest.approx(found[word], rel=1e-3, abs=1e-3)


def test_one_row_is_no_cloud():
    with pytest.raises(ValueError, match='expected at least 2 images'):
        embedding_statistics(torch.ones(1, 4))


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


def test_only_so_many_rows_are_looked_at(cloud):
    z, partner = cloud
    assert embedding_statistics(z, partner, max_rows=20) == embedding_statistics(z[:20], partner[:20])


def test_half_precision_and_no_graph(cloud):
    z = cloud[0].requires_grad_()
    assert embedding_statistics(z.bfloat16())['rank'] == pytest.approx(embedding_statistics(z)['rank'], rel=0.01)
    assert z.grad is None


class Pole(Kernel):
    """phi(t) = -log(1 - t)."""

    def phi(self, t, q):
        return -torch.log1p(-t)


def test_a_kernel_that_is_infinite_at_one_leaves_the_diagonal_out(cloud):
    assert math.isfinite(embedding_statistics(cloud[0], kernel=Pole())['mmd2_score'])


def _on_a_rank(rank, world_size, z, partner):
    rows = slice(rank * 30, rank * 30 + 30)
    return embedding_statistics(z[rows], partner[rows])


def test_two_processes_see_the_union(cloud):
    whole = embedding_statistics(*cloud)
    for found in run_processes(_on_a_rank, 2, *cloud):
        assert found == pytest.approx(whole, rel=1e-5)


def test_a_kernel_without_a_known_null_is_not_measured():
    class Margin(Kernel):
        def phi(self, t, q):
            return (t - 0.9).relu()  # 0 wherever pairs of uniform points lie at q = 8192

    with pytest.warns(UserWarning, match='MMD.2 to uniform is not measured: .*constant at q = 8192'):
        found = embedding_statistics(torch.randn(16, 8192), kernel=Margin())
    assert all(math.isnan(found[word]) for word in ('mmd2', 'mmd2_sd', 'mmd2_score'))
    assert found['std'] > 0.5
