import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import to_hex

from mmkernel.evaluation import Cloud, diagnose_cloud
from mmkernel.visualization.diagnosis_page import diagnosis_html, diagnosis_page


class Source:
    """Images of one grey level each."""

    classes = ['a', 'b', 'c']

    def image(self, i):
        return np.full((4, 4, 1), i, np.uint8)


def cloud(labelled=True, views=True, n=60):
    z = torch.randn(n, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 3 if labelled else torch.full((n,), -1)
    return Cloud(z, z, labels, torch.arange(n), (z, z + 0.1) if views else None, 'digest')


def test_six_panels(tmp_path):
    sample = cloud()
    found = diagnose_cloud(sample)
    figure = diagnosis_page(found, sample, Source(), 'run/epoch_1.pth', tmp_path / 'page.png')
    spectrum, plane, moments = figure.axes[:3]
    images, points = figure.axes[3:-1], figure.axes[-1]
    assert (tmp_path / 'page.png').stat().st_size > 20_000
    assert spectrum.get_lines()[0].get_label().startswith('this run (effective rank')
    assert plane.get_lines()[0].get_xdata()[0] == found.statistics.uniformity
    assert [bar.get_height() for bar in moments.patches[:4]] == [abs(m) for m in found.statistics.moments]
    assert len(points.collections[0].get_offsets()) == 60
    # the first row: image 0 and its six nearest, best first
    cosine = F.normalize(sample.h) @ F.normalize(sample.h[0], dim=0)
    expected = cosine.argsort(descending=True)[:7].tolist()
    assert [int(np.asarray(axes.images[0].get_array())[0, 0]) for axes in images[:7]] == expected


def test_the_image_is_set_apart_from_its_neighbours():
    sample = cloud()
    grid = diagnosis_page(diagnose_cloud(sample), sample, Source()).axes[3:-1]
    assert [axes.get_title() for axes in grid[:7]] == ['image', '1', '2', '3', '4', '5', '6']
    first = {to_hex(axes.spines['left'].get_edgecolor()) for axes in grid[::7]}
    others = {to_hex(axes.spines['left'].get_edgecolor()) for i, axes in enumerate(grid) if i % 7}
    assert first == {'#000000'}
    assert others == {'#009e73', '#d55e00'}  # same label, another
    image, nearest, second = (axes.get_position() for axes in grid[:3])
    assert nearest.x0 - image.x1 > second.x0 - nearest.x1 + 0.005  # a gap


def test_legends_hide_no_data():
    sample = cloud(n=12)
    figure = diagnosis_page(diagnose_cloud(sample), sample, Source())
    figure.draw_without_rendering()
    whole = figure.bbox
    for axes in figure.axes[:3]:
        legend = axes.get_legend().get_window_extent()
        assert not legend.overlaps(axes.get_window_extent())
        assert whole.x0 <= legend.x0
        assert legend.x1 <= whole.x1
    spectrum, plane, moments = (axes.get_legend().get_window_extent() for axes in figure.axes[:3])
    assert spectrum.x1 < plane.x0
    assert plane.x1 < moments.x0


def test_without_labels_or_views():
    sample = cloud(labelled=False, views=False)
    figure = diagnosis_page(diagnose_cloud(sample), sample, Source())
    assert [line.get_label() for line in figure.axes[1].get_lines()] == ['this run (no second views)']


def test_collapsed_cloud_of_equal_points():
    sample = cloud()
    ones = torch.ones_like(sample.z)
    sample = Cloud(ones, ones, sample.labels, sample.index, (ones, ones), 'digest')
    found = diagnose_cloud(sample)
    assert found.state == 'collapsed'
    diagnosis_page(found, sample, Source())


def test_html_needs_nothing_beside_it(tmp_path):
    sample = cloud()
    found = diagnose_cloud(sample)
    path = diagnosis_html(found, diagnosis_page(found, sample, Source()), 'a <run>', tmp_path / 'x' / 'page.html')
    text = path.read_text()
    assert text.startswith('<!doctype html>')
    assert 'a &lt;run&gt;' in text
    assert 'data:image/png;base64,' in text
    assert 'http' not in text
