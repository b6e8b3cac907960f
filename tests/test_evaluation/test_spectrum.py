import pytest
import torch
import torch.nn.functional as F

from mmkernel.evaluation import covariance_spectrum, effective_rank


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
