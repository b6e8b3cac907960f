import numpy as np
import pytest
import torchvision.transforms as T
import torchvision.transforms.functional as F
from PIL import Image, ImageFilter, ImageOps

from mmkernel.datasets import ColorJitter, GaussianBlur, RandomFlip, RandomGrayscale, Solarize, generator
from mmkernel.datasets.operations import blend_table
from mmkernel.registry import TRANSFORMS


@pytest.fixture(params=[(40, 56, 3), (16, 16, 1), (7, 9, 3)], ids=str)
def image(request):
    return np.random.default_rng(0).integers(0, 256, request.param, np.uint8)


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
        assert same(op.apply(image, params), expected)
        orders.add(tuple(k for k, _ in params))
    assert len(orders) > 10


def test_blend_table_equals_pillow():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    for pivot, factor in [(p, f) for p in (0, 1, 77, 128, 255) for f in np.linspace(0, 3, 61)]:
        expected = Image.blend(Image.new('L', ramp.size, pivot), ramp, float(factor))
        assert np.array_equal(blend_table(pivot, float(factor)), np.asarray(expected)[0])


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


@pytest.mark.parametrize('channels', [2, 5])
def test_any_number_of_channels(channels):
    image = np.random.default_rng(0).integers(0, 256, (12, 10, channels), np.uint8)
    params = [(3, 0.2), (0, 1.2), (2, 0.5), (1, 0.5)]
    bright = np.minimum(np.floor(image * np.float32(1.2)), 255)
    mean = int(bright.mean() + 0.5)
    expected = np.floor(mean + 0.5 * (bright - mean))
    assert np.array_equal(ColorJitter().apply(image, params), expected)
    assert np.array_equal(RandomGrayscale().apply(image, True), image)
    blurred = GaussianBlur().apply(image, 1.0)
    assert np.array_equal(blurred[..., 1:2], GaussianBlur().apply(image[..., 1:2], 1.0))
    assert Solarize().apply(image, True).shape == image.shape


@pytest.mark.parametrize('sigma', [0.1, 0.5, 1.3, 2.0])
def test_blur_equals_pillow(image, sigma):
    assert same(GaussianBlur().apply(image, sigma), pillow(image).filter(ImageFilter.GaussianBlur(sigma)))


def test_solarize_equals_pillow(image):
    assert same(Solarize().apply(image, True), ImageOps.solarize(pillow(image)))
    assert same(Solarize(threshold=40).apply(image, True), ImageOps.solarize(pillow(image), 40))


def test_grayscale_equals_torchvision(image):
    gray = RandomGrayscale().apply(image, True)
    assert gray.shape == image.shape
    assert same(gray, F.to_grayscale(pillow(image), image.shape[2]))


def test_flip(image):
    assert same(RandomFlip().apply(image, True), F.hflip(pillow(image)))
    assert same(RandomFlip(direction='vertical').apply(image, True), F.vflip(pillow(image)))


@pytest.mark.parametrize('name', ['RandomFlip', 'ColorJitter', 'RandomGrayscale', 'GaussianBlur', 'Solarize'])
@pytest.mark.parametrize('probability', [0.0, 0.3, 1.0])
def test_probability(name, probability):
    op, rng = TRANSFORMS.build(dict(type=name, probability=probability)), generator(1, 2)
    applied = np.mean([op.draw(rng, 8, 8) is not None for _ in range(2000)])
    assert abs(applied - probability) < 0.05


def test_inputs_are_not_changed(image):
    before = image.copy()
    image.flags.writeable = False  # sources hand out mapped and shared arrays
    for op in (ColorJitter(0.4, 0.4, 0.4, 0.4), RandomGrayscale(), GaussianBlur(), Solarize(), RandomFlip()):
        op.apply(image, op.sample(generator(0, 0), *image.shape[:2]))
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(type='RandomFlip', probability=1.5), 'probability=1.5; expected .* at most 1'),
        (
            dict(type='RandomFlip', direction='left'),
            "direction is 'horizontal' or 'vertical', got 'left'",
        ),
        (dict(type='ColorJitter', brightness=-0.1), r'ColorJitter.brightness=-0.1; expected .* or one strength'),
        (dict(type='ColorJitter', contrast=(1.2, 0.8)), 'contrast='),
        (dict(type='ColorJitter', hue=0.6), 'half the colour circle'),
        (dict(type='GaussianBlur', sigma=(2.0, 0.1)), r'GaussianBlur\.sigma=\(2\.0, 0\.1\); expected \(low, high\)'),
        (dict(type='RandomResizedCrop', size=8, scale=0.5), r'scale=0\.5; expected \(low, high\) with 0 < low'),
        (dict(type='RandomErasing', ratio=(0.0, 1.0)), 'ratio=.* with 0 < low'),
    ],
)
def test_bad_arguments(cfg, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(cfg)


def test_misspelt_keyword_names_the_nearest():
    with pytest.raises(TypeError, match="Did you mean 'brightness'"):
        TRANSFORMS.build(dict(type='ColorJitter', brightnes=0.4))
