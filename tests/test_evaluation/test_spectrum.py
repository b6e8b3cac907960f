import pytest
import torch
import torch.nn.functional as F

from mmkernel.evaluation import (
    CRITERIA,
    cloud_statistics,
    covariance_spectrum,
    criterion_score,
    effective_rank,
    embedding_statistics,
    rankme,
)


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
