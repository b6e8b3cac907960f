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


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_rounding_is_no_dimension(dtype):
    """Embeddings of one direction and many lengths differ by rounding once they are normalised."""
    generator = torch.Generator().manual_seed(0)
    ray = (0.1 + torch.rand(100, 1, generator=generator)) * torch.randn(32, generator=generator)
    assert effective_rank(covariance_spectrum(ray.to(dtype))) == 1
    shaken = ray / ray.norm(dim=1, keepdim=True) + 1e-4 * torch.randn(100, 32, generator=generator)
    assert effective_rank(covariance_spectrum(shaken.to(dtype))) > 20


@pytest.mark.parametrize('scale', [1e-30, 1e-14, 1e20])
def test_units_do_not_matter(scale):
    z = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(covariance_spectrum(scale * z), covariance_spectrum(z), atol=1e-7, rtol=1e-5)


def test_one_row_and_rows_of_zeros():
    assert effective_rank(covariance_spectrum(torch.randn(1, 5))) == 1
    assert effective_rank(covariance_spectrum(torch.zeros(9, 5))) == 1
