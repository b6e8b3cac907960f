import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import assert_close, on_device, photograph, saturated
from PIL import Image

from mmkernel.datasets import ColorJitter, RandomGrayscale, generator
from mmkernel.datasets.colors import greys, turn_hue, turn_hues

SIDES = st.sampled_from([32, 96, 224, 47])
JITTER = st.tuples(st.permutations(range(4)), st.tuples(*[st.floats(0.2, 1.8)] * 3, st.floats(-0.5, 0.5)))


@pytest.fixture(params=[(40, 56, 3), (16, 16, 1), (7, 9, 3)], ids=str)
def image(request):
    return np.random.default_rng(0).integers(0, 256, request.param, np.uint8)


@pytest.fixture(scope='module')
def colours():
    """All 2^24 of them, but every third red."""
    return (
        np.stack(np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 3, indexing='ij'), -1)[::3]
        .reshape(2752, 2048, 3)
        .copy()
    )


def pillow(image):
    return Image.fromarray(image if image.shape[2] == 3 else image[..., 0])


def same(array, expected):
    expected = np.asarray(expected)
    return np.array_equal(array, expected if expected.ndim == 3 else expected[..., None])


def test_jitter_equals_torchvision_in_the_drawn_order(image):
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    op, rng, orders = ColorJitter(0.4, 0.4, 0.2, 0.1), generator(0, 0), set()
    for _ in range(40):
        params = op.draw(rng, *image.shape[:2])
        expected = pillow(image)
        for k, factor in params:
            expected = adjust[k](expected, factor)
        assert same(op.exact(image, params), expected)
        orders.add(tuple(k for k, _ in params))
    assert len(orders) > 10


def test_jitter_ranges():
    op, rng = ColorJitter(brightness=0.8, contrast=(0.5, 0.7), saturation=2.0, hue=0.5), generator(0, 0)
    drawn = [dict(op.draw(rng, 8, 8)) for _ in range(500)]
    values = np.array([[d[k] for k in range(4)] for d in drawn])
    low, high = values.min(0), values.max(0)
    assert np.all(low >= [0.2, 0.5, 0.0, -0.5])
    assert np.all(high <= [1.8, 0.7, 3.0, 0.5])
    assert np.all(high - low > 0.9 * np.array([1.6, 0.2, 3.0, 1.0]))


def test_jitter_ranges_equal_torchvisions():
    ours, theirs = ColorJitter(0.4, 1.5, 0.2, 0.1), T.ColorJitter(0.4, 1.5, 0.2, 0.1)
    assert np.allclose(ours.ranges, [theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue])


def test_jitter_leaves_out_idle_parts():
    op = ColorJitter(brightness=0.4)
    assert [k for k, _ in op.draw(generator(0, 0), 8, 8)] == [0]


def test_jitter_of_one_channel_ignores_colour():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)
    assert np.array_equal(ColorJitter().apply(image, [(2, 0.1), (3, 0.3)]), image)
    assert not np.array_equal(ColorJitter().apply(image, [(1, 0.1)]), image)


def test_grayscale_equals_torchvision(image):
    gray = RandomGrayscale().exact(image, True)
    assert gray.shape == image.shape
    assert same(gray, F.to_grayscale(pillow(image), image.shape[2]))


@pytest.mark.parametrize('steps', [0, 25, 129, 255])
def test_hue_of_all_colours(colours, steps):
    """Pillow's floats decide for colours whose hue is on a border of its 256: the device has the same, OpenCV has not."""
    exact = F.adjust_hue(Image.fromarray(colours), (steps + 0.5 if steps < 128 else steps - 256.5) / 255)
    exact = np.asarray(exact).astype(int)
    device = turn_hues(torch.from_numpy(colours).permute(2, 0, 1)[None].float(), torch.full((1, 1, 1, 1), float(steps)))
    off = np.abs(device[0].permute(1, 2, 0).numpy() - exact)
    assert off.max() <= 1
    assert off.mean() < 1e-4
    off = np.abs(turn_hue(colours, steps) - exact)
    assert off.max() <= 6  # one step of the hue
    assert off.mean() < 0.002


def test_luminance_of_all_colours(colours):
    exact = np.array(Image.fromarray(colours).convert('L'))
    assert torch.equal(
        greys(torch.from_numpy(colours).permute(2, 0, 1)[None].float())[0, 0], torch.from_numpy(exact).float()
    )
    off = np.abs(RandomGrayscale().apply(colours, True)[..., 0] - exact.astype(int))
    assert off.max() <= 1
    assert off.mean() < 0.002


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10**6), SIDES, SIDES, JITTER, st.integers(1, 4))
def test_jitter_is_the_same_everywhere(seed, height, width, drawn, count):
    image, op = photograph(height, width, seed=seed), ColorJitter(0.8, 0.8, 0.8, 0.5)
    params = [(k, drawn[1][k]) for k in drawn[0]][:count]
    exact = op.exact(image, params)
    assert_close(op.apply(image, params), exact)
    assert_close(on_device(op, image, params), exact)


@pytest.mark.parametrize('noise', [False, True])
@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(0, 10**6), SIDES, JITTER)
def test_jitter_of_pure_colours(noise, seed, side, drawn):
    """One in 45 lies on a border of the hue where OpenCV decides otherwise than Pillow, and is then a step of it off.

    Noise comes there by way of contrast and saturation.
    """
    image = (
        np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
        if noise
        else saturated(side, side, seed)
    )
    params, op = [(k, drawn[1][k]) for k in drawn[0]], ColorJitter(0.8, 0.8, 0.8, 0.5)
    exact = op.exact(image, params)
    assert_close(on_device(op, image, params), exact)
    assert np.abs(op.apply(image, params) - exact.astype(int)).mean() <= 1


@pytest.mark.parametrize('channels', [1, 2, 4, 5, 13])
def test_jitter_of_any_number_of_channels(channels):
    """Bright and contrast only, about the mean of all channels, cut off as Pillow does."""
    image, params = photograph(12, 10, channels), [(3, 0.2), (0, 1.2), (2, 0.5), (1, 0.5)]
    bright = np.minimum(np.floor(image * np.float32(1.2)), 255)
    mean = int(bright.mean() + 0.5)
    expected = np.floor(mean + 0.5 * (bright - mean))
    op = ColorJitter(0.4, 0.4, 0.4, 0.4)
    for made in (op.exact(image, params), op.apply(image, params), on_device(op, image, params)):
        assert np.array_equal(made, expected)
    gray = RandomGrayscale()
    for made in (gray.exact(image, True), gray.apply(image, True), on_device(gray, image, True)):
        assert np.array_equal(made, image)


def test_blending_equals_pillow():
    """Brightness and contrast in a worker: cut off as Pillow's blend, at every level."""
    ramp = np.arange(256, dtype=np.uint8)[None, :, None]
    for factor in np.linspace(0, 3, 301).tolist():
        for params in ([(0, factor)], [(1, factor)]):
            assert np.abs(ColorJitter().apply(ramp, params) - ColorJitter().exact(ramp, params).astype(int)).max() <= 1
