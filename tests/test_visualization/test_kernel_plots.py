import numpy as np
import pytest

from mmkernel.kernels import LegendreKernel, RBFKernel, RieszKernel
from mmkernel.kernels.lab import kernel_profile
from mmkernel.visualization.kernels import kernel_plot


def test_four_panels_one_colour_per_kernel(tmp_path):
    kernels = {'L = 3': LegendreKernel((1, 40, 40)), 'rbf': RBFKernel(2), 'riesz': RieszKernel()}
    profiles = {name: kernel_profile(kernel, 64, 128, order=5) for name, kernel in kernels.items()}
    figure = kernel_plot(profiles, tmp_path / 'plots' / 'kernels.png')
    assert (tmp_path / 'plots' / 'kernels.png').stat().st_size > 10_000
    profile, slope, expansion, pull = figure.axes
    lines = profile.get_lines()
    assert [line.get_label() for line in lines[:3]] == list(kernels)
    for line in lines[:3]:  # from the energy of uniform points to that of a pair that coincides
        assert np.asarray(line.get_ydata())[-1] == pytest.approx(1)
    assert len(pull.patches) == 3 * 5
    assert slope.get_yscale() == expansion.get_yscale() == 'log'


def test_one_width_only():
    with pytest.raises(ValueError, match='compared at one width'):
        kernel_plot({'a': kernel_profile(RBFKernel(), 8), 'b': kernel_profile(RBFKernel(), 16)})


@pytest.mark.parametrize('q', [2, 3, 64])
def test_the_band_of_uniform_pairs_holds_95_percent_of_them(q):
    figure = kernel_plot({'rbf': kernel_profile(RBFKernel(), q)})
    reach = max(corner[0] for corner in figure.axes[0].patches[0].get_corners())
    points = np.random.default_rng(0).normal(size=(2, 20_000, q))
    u, v = points / np.linalg.norm(points, axis=-1, keepdims=True)
    assert reach < 1
    assert np.mean(np.abs((u * v).sum(-1)) < reach) == pytest.approx(0.95, abs=0.005)
