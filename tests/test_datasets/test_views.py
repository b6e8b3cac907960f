import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode

from mmkernel.datasets import Operation, PatchView, View, generator
from mmkernel.datasets.views import build_view
from mmkernel.registry import TRANSFORMS

PARENT = dict(size=48, crop=dict(type='RandomResizedCrop', scale=(0.6, 1.0), interpolation='bilinear'))


def streams(k):
    return generator(0, 0, 0, k % 100)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def test_a_view_is_its_crop_and_operations_in_dict_order(image):
    ops = dict(blur=dict(type='GaussianBlur', probability=1.0), solarize=dict(type='Solarize', probability=1.0))
    crop = dict(type='RandomResizedCrop', interpolation='bicubic')
    view = View(count=2, size=32, crop=crop, ops=ops)
    drawn = view.draw(streams, 60, 90)
    made = view.apply(image, drawn, True)  # exact
    for array, (box, sigma, _) in zip(made, drawn, strict=True):
        expected = F.resized_crop(Image.fromarray(image), *box, [32, 32], InterpolationMode.BICUBIC)
        expected = F.solarize(expected.filter(ImageFilter.GaussianBlur(sigma)), 128)
        assert np.array_equal(array, np.asarray(expected))
    assert not np.array_equal(*made)
    turned = View(size=32, crop=crop, ops=dict(reversed(ops.items()))).chain.steps
    assert [type(step).__name__ for step in turned] == ['RandomResizedCrop', 'Solarize', 'GaussianBlur']


def test_an_operation_set_to_none_is_left_out():
    assert View(ops=dict(flip=None, solarize=dict(type='Solarize'))).chain.steps[0].threshold == 128


def test_patches_are_slices_of_one_parent(image):
    view = PatchView(count=9, size=16, parent=PARENT, grid=(3, 3), jitter=4)
    drawn = view.draw(streams, 60, 90)
    box = drawn[0][0]
    parent = np.asarray(F.resized_crop(Image.fromarray(image), *box, [48, 48], InterpolationMode.BILINEAR))
    for k, (patch, (top, left)) in enumerate(zip(view.apply(image, drawn, True), drawn[1], strict=True)):
        assert np.array_equal(patch, parent[top : top + 16, left : left + 16])
        step = (48 - 16 - 4) // 2  # the published spacing
        assert 0 <= top - step * (k // 3) <= 4
        assert 0 <= left - step * (k % 3) <= 4


def test_fewer_patches_are_picked_without_repetition():
    view = PatchView(count=5, size=16, parent=PARENT, jitter=0)
    seen = set()
    for index in range(60):
        corners = view.draw(lambda k, i=index: generator(0, 0, i, k % 100), 60, 90)[1]
        assert len(set(corners)) == 5
        seen |= set(corners)
    assert seen == {(16 * r, 16 * c) for r in range(3) for c in range(3)}


def test_a_full_grid_without_jitter_is_row_major():
    view = PatchView(count=49, size=64, parent=dict(size=256, crop=dict(type='RandomResizedCrop')), grid=(7, 7))
    assert view.draw(streams, 300, 300)[1] == [(32 * r, 32 * c) for r in range(7) for c in range(7)]


def test_a_grid_with_a_stride():
    parent = dict(size=20, crop=dict(type='RandomResizedCrop'))
    view = PatchView(count=6, size=8, parent=parent, grid=(2, 3), stride=5)
    drawn = view.draw(streams, 30, 30)
    assert drawn[1] == [(5 * r, 5 * c) for r in range(2) for c in range(3)]
    assert str(drawn) == str(view.draw(streams, 30, 30))
    with pytest.raises(ValueError, match='stride 7 does not fit into a parent of .20, 20.; the largest stride is 6'):
        PatchView(count=6, size=8, parent=parent, grid=(2, 3), stride=7).draw(streams, 30, 30)


def test_patches_have_operations_of_their_own(image):
    view = PatchView(count=9, size=16, parent=PARENT, ops=dict(flip=dict(type='RandomFlip')))
    drawn = view.draw(streams, 60, 90)
    assert len({str(d) for d in drawn[2]}) == 2
    assert all(p.shape == (16, 16, 3) for p in view.apply(image, drawn))


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(size=8), 'needs a crop that makes it'),
        (dict(crop=dict(type='RandomResizedCrop')), 'needs a size'),
        (dict(count=0), 'count=0; expected'),
        (dict(count=10, size=8, parent=PARENT), 'a 3x3 grid has 9'),
        (dict(size=8, crop=dict(type='RandomResizedCrop', interpolation='x')), "interpolation is one of.*'x'"),
    ],
)
def test_bad_views_name_the_view(cfg, message):
    with pytest.raises(ValueError, match=f"view 'mine'.*{message}"):
        build_view('mine', cfg)


def test_unknown_keywords_and_types():
    with pytest.raises(TypeError, match="view 'mine'.*unknown keyword 'sise'. Did you mean 'size'"):
        build_view('mine', dict(sise=8))
    with pytest.raises(TypeError, match='parent takes size, crop and ops, got scale'):
        build_view('mine', dict(count=1, size=8, parent=dict(PARENT, scale=1)))
    with pytest.raises(KeyError, match='Did you mean .RandomFlip.'):
        build_view('mine', dict(ops=dict(flip=dict(type='RandomFlipp'))))


class Darkened(Operation):
    def apply(self, image, params):
        image //= 2
        return image


@pytest.mark.parametrize(
    'cut', [dict(), dict(size=32, crop=dict(type='CenterCrop')), dict(count=4, size=16, parent={})]
)
def test_an_operation_cannot_write_into_what_the_source_keeps(image, cut, monkeypatch):
    monkeypatch.setitem(TRANSFORMS._module_dict, 'Darkened', Darkened)
    before = image.copy()
    view = build_view('mine', dict(cut, ops=dict(dark=dict(type='Darkened'))))
    with pytest.raises(ValueError, match='read-only'):
        view.apply(image, view.draw(streams, 60, 90))
    assert np.array_equal(image, before)
    assert image.flags.writeable


def test_a_step_must_be_an_operation():
    with pytest.raises(TypeError, match="view 'mine': CenterView is not an operation of a view: derive it from"):
        build_view('mine', dict(ops=dict(centre=dict(type='CenterView'))))


def test_patches_that_do_not_fit():
    with pytest.raises(ValueError, match='do not fit into a parent of'):
        PatchView(count=1, size=40, parent=PARENT, jitter=10).draw(streams, 60, 90)


def test_nothing_is_drawn_from_global_generators():
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    view = View(size=8, crop=dict(type='RandomResizedCrop'), ops=dict(jitter=dict(type='ColorJitter', hue=0.1)))
    view.apply(np.zeros((20, 20, 3), np.uint8), view.draw(streams, 20, 20))
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())
