import numpy as np
import torch
from PIL import Image

from mmkernel.datasets import ViewDataset
from mmkernel.visualization import overview, view_grid
from mmkernel.visualization.view_sheet import column_names, view_sheet


class Views:
    """Images of one grey level; view v of epoch e is v + 10 e levels brighter."""

    view_names = ('first', 'second')

    def __init__(self, channels):
        self.source, self.channels = self, channels

    def image(self, i):
        return np.full((6, 6, self.channels), 100 + i, np.uint8)

    def __getitem__(self, key):
        epoch, i = key
        views = [torch.full((self.channels, 6, 6), 100 + i + v + 10 * epoch, dtype=torch.uint8) for v in (1, 2)]
        return dict(inputs=views, sample_index=i, label=-1)


def level(axes):
    return np.asarray(axes.images[0].get_array()).flat[0]


def test_one_row_per_image():
    figure = view_grid(Views(3), indices=(0, 5))
    assert [level(axes) for axes in figure.axes] == [100, 101, 102, 105, 106, 107]
    assert [axes.get_title() for axes in figure.axes] == ['image', 'first', 'second', '', '', '']


def test_epochs_side_by_side_and_grey_images(tmp_path):
    figure = view_grid(Views(1), indices=(0,), epochs=(0, 1), path=tmp_path / 'views.png')
    assert [level(axes) for axes in figure.axes] == [100, 101, 102, 111, 112]
    assert figure.axes[-1].get_title() == 'second, epoch 1'
    assert figure.axes[0].images[0].get_clim() == (0, 255)
    assert (tmp_path / 'views.png').is_file()


def test_views_that_are_left_to_the_device_are_shown_finished():
    flip = dict(flip=dict(type='RandomFlip', probability=1.0))
    data = ViewDataset(dict(type='Digits'), dict(a=dict(ops=flip)), views_on='device')
    data.place('cpu')
    assert np.array_equal(data[0, 0]['inputs'][0][0], data.source.image(0)[..., 0])  # not yet
    shown = view_grid(data, indices=(0,)).axes[1].images[0].get_array()
    assert np.array_equal(shown, data.source.image(0)[:, ::-1, 0])


def test_views_of_one_name_are_numbered_and_a_name_that_all_share_is_left_out():
    class Twins(Views):
        view_names = ('both', 'both')

    assert [axes.get_title() for axes in view_grid(Twins(3), indices=(0,)).axes] == ['image', 'view 1', 'view 2']


def test_overview_holds_every_part():
    few = {'1': dict(mean=60.0, sd=5.0, values=[55, 65]), 'all': dict(mean=97.0, sd=0.0, values=[97])}
    rows = [dict(name=name, width=8, scores=dict(knn=few, linear=few)) for name in ('raw pixels', 'untrained', 'L = 3')]
    cloud, labels = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4
    figure = overview(Views(1), {'L = 3': cloud}, np.random.default_rng(0).normal(size=(40, 2)), labels, rows)
    views, (spectrum, plane, knn, linear) = figure.axes[:12], figure.axes[12:]
    assert all(len(axes.images) == 1 for axes in views)
    assert len(spectrum.get_lines()) == 2
    assert len(plane.collections[0].get_offsets()) == 40
    for axes in (knn, linear):
        assert [bar.get_height() for bar in axes.patches] == [60.0, 97.0] * 3
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ['1 label per class', 'all labels']


def test_a_sheet_has_a_column_for_each_view(tmp_path):
    """Large views as they are, small and grey ones enlarged by whole numbers."""
    large = torch.randint(256, (2, 3, 100, 70), dtype=torch.uint8)
    small = torch.randint(256, (2, 1, 30, 30), dtype=torch.uint8)
    view_sheet(tmp_path / 'views.png', [large, small], ['large', 'small'])
    page = torch.from_numpy(np.array(Image.open(tmp_path / 'views.png'))).permute(2, 0, 1)
    assert page.shape == (3, 14 + 2 * 104, 4 + 74 + 94)
    assert torch.equal(page[:, 14 + 104 : 14 + 204, 4:74], large[1])
    assert torch.equal(page[:, 14:104:3, 78:168:3], small[0].expand(3, -1, -1))
    assert (page[:, :14] < 255).any()  # names
    assert column_names(['a', 'b', 'a']) == ['a 1', 'b', 'a 2']
    assert column_names(['a']) == ['a']
