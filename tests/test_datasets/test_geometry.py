import math

import numpy as np
import pytest
import torchvision.transforms.functional as F
from PIL import Image
from torchvision.transforms import InterpolationMode

from mmkernel.datasets import GaussianNoise, RandomAffine, RandomErasing, generator


def smooth(height=64, width=80):
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 100 * np.sin(x / 7 + k) * np.cos(y / 9) for k in range(3)], -1).astype(np.uint8)


@pytest.mark.parametrize(
    'degrees, scale, shear, right, down',
    [(20, 1, 0, 0, 0), (-33, 1.2, 0, 3, -2), (10, 0.8, 15, 0, 4), (0, 1, -20, 0, 0)],
)
def test_affine_agrees_with_torchvision(degrees, scale, shear, right, down):
    image = smooth()
    ours = RandomAffine().apply(image, (math.radians(degrees), math.radians(shear), scale, right, down))
    # torchvision shears the other way round
    theirs = F.affine(Image.fromarray(image), degrees, [right, down], scale, [-shear, 0], InterpolationMode.BILINEAR)
    difference = np.abs(ours.astype(int) - np.asarray(theirs))[10:-10, 10:-10]
    assert difference.mean() < 1.0


def test_affine_shift_is_exact_and_fills():
    image = smooth()[..., :1]
    moved = RandomAffine(fill=9).apply(image, (0.0, 0.0, 1.0, 3.0, -2.0))
    assert np.array_equal(moved[:-2, 3:], image[2:, :-3])
    assert (moved[-2:] == 9).all()
    assert (moved[:, :3] == 9).all()
    edge = RandomAffine(border='edge').apply(image, (0.0, 0.0, 1.0, 3.0, 0.0))
    assert (edge[:, :3] == image[:, :1]).all()


@pytest.mark.parametrize('channels', [1, 3, 6])
def test_affine_identity_for_any_channels(channels):
    image = np.random.default_rng(0).integers(0, 256, (16, 12, channels), np.uint8)
    assert np.array_equal(RandomAffine().apply(image[:, ::-1], (0.0, 0.0, 1.0, 0.0, 0.0)), image[:, ::-1])


def test_affine_ranges():
    op, rng = RandomAffine(degrees=30, translate=0.1, scale=(0.5, 2.0), shear=10), generator(0, 0)
    drawn = np.array([op.draw(rng, 20, 40) for _ in range(2000)])
    limits = np.array([math.radians(30), math.radians(10), 2.0, 4.0, 2.0])
    assert np.all(drawn.max(0) <= limits)
    assert np.all(drawn.max(0) > 0.95 * limits)
    assert drawn[:, 2].min() >= 0.5
    assert abs(np.log(drawn[:, 2]).mean()) < 0.05


def test_noise_has_the_drawn_deviation_and_repeats():
    image = np.full((100, 100, 1), 128, np.uint8)
    op = GaussianNoise(sigma=(5.0, 20.0))
    sigma, key = op.draw(generator(0, 0), 100, 100)
    noisy = op.apply(image, (sigma, key))
    assert abs(noisy.std() / sigma - 1) < 0.05
    assert np.array_equal(noisy, op.apply(image, (sigma, key)))
    assert not np.array_equal(noisy, op.apply(image, (sigma, key + 1)))
    assert GaussianNoise(sigma=4.0).sigma == (0.0, 4.0)


def test_erasing_one_box():
    image = np.full((20, 30, 2), 200, np.uint8)
    op, rng = RandomErasing(scale=(0.1, 0.3), fill=7, probability=1.0), generator(0, 0)
    for _ in range(50):
        top, left, height, width = op.draw(rng, 20, 30)
        erased = op.apply(image, (top, left, height, width))
        assert (erased == 7).sum() == 2 * height * width
        assert 0.07 * 600 < height * width < 0.36 * 600
    assert (image == 200).all()


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: RandomAffine(border='wrap'), "border is one of 'constant'.*got 'wrap'"),
        (lambda: RandomAffine(scale=(0, 1)), r'scale=\(0, 1\); expected \(low, high\) with 0 < low'),
        (lambda: RandomAffine(degrees=-1), 'degrees=-1; expected'),
        (lambda: RandomErasing(scale=(0.3, 0.1)), r'RandomErasing\.scale=\(0\.3, 0\.1\); expected'),
        (lambda: GaussianNoise(sigma=(-1, 2)), 'sigma='),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
