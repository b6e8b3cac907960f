import numpy as np
import pytest
import torch

from mmkernel.evaluation import covariance_spectrum
from mmkernel.visualization import embedding_map, planar_map, spectrum_plot


def cloud(n=60, q=12, seed=0):
    return torch.randn(n, q, generator=torch.Generator().manual_seed(seed))


def test_spectrum_lines_are_log_eigenvalues():
    wide, flat = cloud(), cloud() * torch.tensor([1.0] * 3 + [0.0] * 9)
    (axes,) = spectrum_plot({'L = 3': wide, 'L = 1': flat}).axes
    first, second, uniform = axes.get_lines()
    np.testing.assert_allclose(first.get_ydata(), covariance_spectrum(wide).log10())
    assert first.get_label().startswith('L = 3 (effective rank ')
    assert np.asarray(second.get_ydata())[4:].tolist() == [-10] * 8  # collapsed dimensions lie on the floor
    assert uniform.get_ydata()[0] == pytest.approx(-np.log10(12))


def test_a_spectrum_ends_where_the_images_end():
    """N points span N - 1 directions; the eigenvalues after these say nothing about the encoder."""
    (axes,) = spectrum_plot({'few': cloud(n=8), 'many': cloud(n=60)}).axes
    few, many, limit, _ = axes.get_lines()
    assert few.get_xdata()[-1] == limit.get_xdata()[0] == 7
    assert np.asarray(few.get_ydata()).min() > -3  # no cliff
    assert many.get_xdata()[-1] == 12
    assert limit.get_label() == 'limit of 8 images: 7 directions'


def test_what_is_rounding_is_said():
    def words(z):
        return [text.get_text().strip() for text in spectrum_plot({'a': z}).axes[0].texts]

    assert words(cloud()) == []
    assert words(cloud() * torch.tensor([1.0] * 3 + [0.0] * 9)) == ['below: rounding of float32']


def test_no_uniform_line_for_different_widths():
    (axes,) = spectrum_plot({'a': cloud(q=12), 'b': cloud(q=8)}).axes
    assert len(axes.get_lines()) == 2


def test_map_shows_each_image_in_the_colour_of_its_label(tmp_path):
    labels = torch.arange(60) % 3
    figure = embedding_map(cloud(), labels, ['cat', 'dog', 'emu'], path=tmp_path / 'map.png')
    (axes,) = figure.axes
    (points,) = axes.collections
    assert len(points.get_offsets()) == 60
    assert points.get_array().tolist() == labels.tolist()
    assert [word.get_text() for word in axes.texts] == ['cat', 'dog', 'emu']
    assert (tmp_path / 'map.png').is_file()


def test_map_is_reproducible_and_separates_clusters():
    x = torch.cat([cloud(30) + 8, cloud(30, seed=1) - 8])
    points = planar_map(x, seed=3)
    assert np.array_equal(points, planar_map(x, seed=3))
    gap = np.linalg.norm(points[:30].mean(0) - points[30:].mean(0))
    assert gap > points[:30].std()
    with pytest.raises(ValueError, match='expected at least 3'):
        planar_map(x[:2])


def test_map_of_a_collapsed_cloud_is_one_point():
    assert planar_map(torch.ones(20, 4) * torch.rand(20, 1)).tolist() == [[0, 0]] * 20
