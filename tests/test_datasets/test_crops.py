import math

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from photographs import assert_close, photograph
from PIL import Image
from torchvision.transforms import InterpolationMode

from mmkernel.datasets import CenterCrop, CenterView, RandomResizedCrop, generator
from mmkernel.datasets.crops import resize_fast

MODES = dict(bicubic=InterpolationMode.BICUBIC, bilinear=InterpolationMode.BILINEAR)


@pytest.fixture(params=[(61, 83, 3), (83, 61, 3), (16, 16, 1)], ids=str)
def image(request):
    return np.random.default_rng(0).integers(0, 256, request.param, np.uint8)


def pillow(image):
    return Image.fromarray(image if image.shape[2] == 3 else image[..., 0])


def same(array, expected):
    expected = np.asarray(expected)
    return np.array_equal(array, expected if expected.ndim == 3 else expected[..., None])


@pytest.mark.parametrize('interpolation', MODES)
@pytest.mark.parametrize('size', [14, 32, (20, 90)])
def test_resized_crop_equals_torchvision(image, interpolation, size):
    op, rng = RandomResizedCrop(size, interpolation=interpolation), generator(0, 0)
    for _ in range(10):
        box = op.draw(rng, *image.shape[:2])
        expected = F.resized_crop(pillow(image), *box, [size] * 2 if isinstance(size, int) else list(size),
                                  MODES[interpolation])  # fmt: skip
        assert same(op.exact(image, box), expected)


@pytest.mark.parametrize('interpolation', ['nearest', 'bilinear', 'bicubic', 'lanczos'])
@pytest.mark.parametrize('channels', [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize('size', [32, 96, (61, 47), (120, 160)])
def test_a_worker_resizes_as_pillow(interpolation, channels, size):
    """Noise too, and larger than the image."""
    for image in (
        photograph(95, 120, channels),
        np.random.default_rng(0).integers(0, 256, (95, 120, channels), np.uint8),
    ):
        image.flags.writeable = False  # sources hand out mapped and shared arrays
        op, rng = RandomResizedCrop(size, interpolation=interpolation), generator(0, 0)
        for _ in range(10):
            box = op.draw(rng, *image.shape[:2])
            made, exact = op.apply(image, box), op.exact(image, box)
            assert made.flags.c_contiguous
            assert_close(made, exact)
            assert np.abs(made - exact.astype(int)).mean() < 0.05


def test_boxes_are_distributed_as_torchvisions():
    """Mean and deviation of area and log ratio over 4000 boxes each; five standard errors."""
    torch.manual_seed(0)
    canvas, op, rng = torch.empty(3, 60, 80), RandomResizedCrop(8), generator(0, 0)
    ours = np.array([op.draw(rng, 60, 80) for _ in range(4000)], float)
    theirs = np.array([T.RandomResizedCrop.get_params(canvas, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)], float)
    for statistic in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: np.log(b[:, 3] / b[:, 2]),
        lambda b: b[:, 0],
        lambda b: b[:, 1],
    ):
        x, y = statistic(ours), statistic(theirs)
        assert abs(x.mean() - y.mean()) < 5 * math.sqrt((x.var() + y.var()) / 4000)
        assert abs(x.std() / y.std() - 1) < 0.1


@pytest.mark.parametrize('height, width', [(5, 500), (500, 5), (1, 1)])
def test_boxes_of_thin_images_stay_inside(height, width):
    op, rng = RandomResizedCrop(8, scale=(0.9, 1.0)), generator(0, 0)
    for _ in range(50):
        top, left, h, w = op.draw(rng, height, width)
        assert 0 <= top <= top + h <= height
        assert 0 <= left <= left + w <= width
        assert h > 0
        assert w > 0
    assert op.apply(np.zeros((height, width, 3), np.uint8), (top, left, h, w)).shape == (8, 8, 3)


@pytest.mark.parametrize('resize, crop', [(32, 28), (None, 40), (None, 100), (20, 33), (24, None), (None, None)])
@pytest.mark.parametrize('interpolation', MODES)
def test_center_view_equals_torchvision(image, resize, crop, interpolation):
    expected = pillow(image)
    if resize:
        expected = F.resize(expected, resize, MODES[interpolation])
    if crop:
        expected = F.center_crop(expected, [crop, crop])
    assert same(CenterView(resize, crop, interpolation)(image), expected)
    if crop:
        assert same(CenterCrop(crop, resize, interpolation).apply(image), expected)


def test_bad_arguments():
    with pytest.raises(ValueError, match="interpolation is one of 'nearest'.*got 'cubic'"):
        RandomResizedCrop(8, interpolation='cubic')
    with pytest.raises(ValueError, match=r'scale=\(0\.0, .*; expected \(low, high\) with 0 < low'):
        RandomResizedCrop(8, scale=(0.0, 1.0))
    with pytest.raises(ValueError, match='size=0; expected'):
        RandomResizedCrop(0)
    with pytest.raises(ValueError, match='interpolation'):
        CenterView(interpolation='area')


@pytest.mark.parametrize('size', [(48, 40), (20, 30)])
def test_images_of_any_strides_are_resized(size):
    image = photograph(60, 70)
    for seen in (
        image[::-1],
        image[:, ::-1],
        image[..., ::-1],
        image[::2, ::2],
        image.transpose(1, 0, 2),
        image[5:50, 3:],
    ):
        for writeable in (True, False):
            seen.flags.writeable = writeable
            assert np.array_equal(resize_fast(seen, *size, 'bicubic'), resize_fast(seen.copy(), *size, 'bicubic'))
