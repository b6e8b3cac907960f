import numpy as np
import pytest
import torchvision.transforms.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import assert_close, on_device, photograph
from PIL import Image, ImageFilter, ImageOps

from mmkernel.datasets import ColorJitter, GaussianBlur, Operation, RandomFlip, RandomGrayscale, Solarize, generator
from mmkernel.registry import TRANSFORMS


@pytest.fixture(params=[(40, 56, 3), (16, 16, 1), (7, 9, 3)], ids=str)
def image(request):
    return np.random.default_rng(0).integers(0, 256, request.param, np.uint8)


def pillow(image):
    return Image.fromarray(image if image.shape[2] == 3 else image[..., 0])


def same(array, expected):
    expected = np.asarray(expected)
    return np.array_equal(array, expected if expected.ndim == 3 else expected[..., None])


@pytest.mark.parametrize('sigma', [0.0, 0.1, 0.77, 1.3, 6.0])
def test_blur_equals_pillow(image, sigma):
    op = GaussianBlur((0.0, 6.0))
    expected = op.exact(image, sigma)
    assert same(expected, pillow(image).filter(ImageFilter.GaussianBlur(sigma)))
    assert np.array_equal(on_device(op, image, sigma), expected)  # sums that lie between two levels too


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([32, 96, 224, 47]), st.floats(0.0, 6.0))
def test_blur_is_the_same_everywhere(seed, side, sigma):
    op, image = GaussianBlur(sigma=(0.0, 6.0)), photograph(side, side + 9, seed=seed)
    exact = op.exact(image, sigma)
    assert_close(op.apply(image, sigma), exact)
    assert_close(on_device(op, image, sigma), exact)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([3, 32, 96, 47]), st.floats(0.0, 6.0))
def test_blur_of_noise(seed, side, sigma):
    """A worker rounds three times where Pillow rounds six times: on pure noise that alone may be a level on average."""
    op, image = (
        GaussianBlur(sigma=(0.0, 6.0)),
        np.random.default_rng(seed).integers(0, 256, (side, side + 9, 3), np.uint8),
    )
    exact = op.exact(image, sigma)
    assert np.array_equal(on_device(op, image, sigma), exact)
    assert np.abs(op.apply(image, sigma) - exact.astype(int)).max() <= 4


@pytest.mark.parametrize('op', [RandomFlip(), RandomFlip(direction='vertical'), Solarize(), Solarize(threshold=40)])
def test_flip_and_solarize_equal_pillow(image, op):
    exchanged = F.hflip if getattr(op, 'axis', 0) else F.vflip
    solarize = isinstance(op, Solarize)
    expected = ImageOps.solarize(pillow(image), op.threshold) if solarize else exchanged(pillow(image))
    for made in (op.exact(image, True), op.apply(image, True), on_device(op, image, True)):
        assert same(made, expected)


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 5, 13])
def test_any_number_of_channels(channels):
    """Each channel comes out as it does alone; OpenCV sums the blur in another order, and may round otherwise."""
    image = photograph(12, 10, channels)
    for op, params in ((GaussianBlur(), 1.0), (Solarize(), True), (RandomFlip(), True)):
        for form in (op.exact, op.apply, lambda image, params, op=op: on_device(op, image, params)):
            made = form(image, params)
            alone = [form(image[..., c : c + 1], params) for c in range(channels)]
            assert np.abs(made - np.concatenate(alone, -1).astype(int)).max() <= (form == op.apply and op.floats == 1)


def test_an_operation_without_a_device_form():
    class Mine(Operation):
        """Nothing but apply."""

        def apply(self, image, params):
            return 255 - image

    image = photograph(8, 8)
    assert Mine.floats is None
    assert np.array_equal(Mine().exact(image, True), 255 - image)
    with pytest.raises(NotImplementedError, match='Mine has no device form: apply it in the worker'):
        Mine().on_device(None, None)


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
        for form in (op.apply, op.exact):
            form(image, op.sample(generator(0, 0), *image.shape[:2]))
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
