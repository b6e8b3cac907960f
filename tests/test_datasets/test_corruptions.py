import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from PIL import Image
from scipy import ndimage

from mmkernel.datasets import AutoAugment, ColorDrop, Cutout, PaddedCrop, RandomRotation, Sobel, generator
from mmkernel.registry import TRANSFORMS

NAMES = ['RandomRotation', 'Sobel', 'Cutout', 'ColorDrop', 'AutoAugment']


@pytest.fixture(params=[(24, 24, 3), (16, 16, 1), (12, 12, 5)], ids=str)
def image(request):
    return np.random.default_rng(0).integers(0, 256, request.param, np.uint8)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)


def test_rotation_equals_pillow(rgb):
    op, rng, seen = RandomRotation(), generator(0, 0), set()
    for _ in range(40):
        turns = op.draw(rng, 24, 24)
        expected = F.rotate(Image.fromarray(rgb), 90 * turns)
        assert np.array_equal(op.apply(rgb, turns), np.asarray(expected))
        seen.add(turns)
    assert seen == {0, 1, 2, 3}


def test_rotation_of_an_oblong_image():
    assert RandomRotation(angles=(0, 180)).draw(generator(0, 0), 10, 20) in (0, 2)
    with pytest.raises(ValueError, match='10 x 20 would change its size when turned by 90'):
        RandomRotation(angles=(90,)).draw(generator(0, 0), 10, 20)


def test_sobel_equals_scipy(image):
    planes = image
    if image.shape[2] == 3:
        planes = np.asarray(Image.fromarray(image).convert('L'))[..., None]
    planes = planes.astype(np.float64)
    each = [[ndimage.sobel(plane, axis, mode='mirror') for plane in np.moveaxis(planes, 2, 0)] for axis in (0, 1)]
    size = np.moveaxis(np.hypot(*np.array(each)), 0, 2)
    expected = np.broadcast_to(np.minimum(np.rint(size), 255), image.shape)
    assert np.abs(Sobel().apply(image, True).astype(int) - expected).max() <= 1  # float32 against float64 at halves
    assert not Sobel().apply(np.full_like(image, 77), True).any()


def test_cutout_is_a_square_anywhere(image):
    height, width = image.shape[:2]
    op, rng, covered = Cutout(size=0.5, fill=7), generator(0, 0), np.zeros((height, width), bool)
    for _ in range(300):
        top, left, high, wide = op.sample(rng, height, width)
        assert 0 < high <= height // 2
        assert 0 < wide <= width // 2
        bottom, right = top + high, left + wide
        made = op.apply(image, (top, left, high, wide))
        assert (made[top:bottom, left:right] == 7).all()
        hole = np.zeros((height, width), bool)
        hole[top:bottom, left:right] = True
        assert np.array_equal(made[~hole], image[~hole])
        covered |= hole
    assert covered.all()


@pytest.mark.parametrize('keep', [1, 2])
def test_color_drop(rgb, keep):
    op, rng, kept = ColorDrop(keep=keep), generator(0, 0), set()
    for _ in range(50):
        dropped = op.draw(rng, 24, 24)
        made = op.apply(rgb, dropped)
        rest = [c for c in range(3) if c not in dropped]
        assert len(rest) == keep
        assert np.array_equal(made[..., rest], rgb[..., rest])
        assert (made[..., dropped] == 128).all()
        kept.add(tuple(rest))
    assert len(kept) == 3
    gray = rgb[..., :1]
    assert np.array_equal(op.apply(gray, [0, 1]), gray)


def test_padded_crop_keeps_the_size(image):
    size = image.shape[0] - 4
    op, rng = PaddedCrop(size=size, fill=9), generator(0, 0)
    for _ in range(20):
        top, left = op.draw(rng, *image.shape[:2])
        made = op.apply(image, (top, left))
        assert made.shape == image.shape
        assert np.array_equal(made[2:-2, 2:-2], image[top : top + size, left : left + size])
        assert (made[:2] == 9).all()
    with pytest.raises(ValueError, match='no part of'):
        PaddedCrop(size=99).draw(rng, *image.shape[:2])


@pytest.mark.parametrize('policy', ['imagenet', 'cifar10', 'svhn'])
def test_auto_augment_equals_torchvision(rgb, policy, monkeypatch):
    ours, theirs = AutoAugment(policy), T.AutoAugment(T.AutoAugmentPolicy(policy))
    for k in range(60):
        rng = generator(0, 0, k)
        which = int(rng.integers(len(theirs.policies)))
        draws = which, torch.tensor(rng.random(2)), torch.tensor(rng.integers(2, size=2))
        monkeypatch.setattr(T.AutoAugment, 'get_params', staticmethod(lambda n, d=draws: d))
        params = ours.sample(generator(0, 0, k), 24, 24)
        assert np.array_equal(ours.apply(rgb, params), np.asarray(theirs(Image.fromarray(rgb))))


def test_auto_augment_draws_from_our_generator_only(image):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    op = AutoAugment()
    first, second = (op.sample(generator(3, 1, 2), *image.shape[:2]) for _ in range(2))
    assert first == second
    assert op.apply(image, first).shape == image.shape
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('probability', [0.0, 0.3, 1.0])
def test_probability(name, probability):
    op, rng = TRANSFORMS.build(dict(type=name, probability=probability)), generator(1, 2)
    applied = np.mean([op.draw(rng, 8, 8) is not None for _ in range(2000)])
    assert abs(applied - probability) < 0.05


@pytest.mark.parametrize('name', NAMES)
def test_inputs_are_not_changed_and_may_have_any_strides(image, name):
    before = image.copy()
    image.flags.writeable = False
    op = TRANSFORMS.build(dict(type=name, probability=1.0))
    made = op.apply(image, op.sample(generator(0, 0), *image.shape[:2]))
    assert np.array_equal(image, before)
    assert made.shape == image.shape
    assert made.dtype == np.uint8
    assert made.flags.c_contiguous  # so that torch.from_numpy takes it
    turned = np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1]
    again = op.apply(turned, op.sample(generator(0, 0), *image.shape[:2]))
    assert np.array_equal(again, made)


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(type='RandomRotation', angles=(0, 45)), 'angles must be multiples of 90'),
        (dict(type='Cutout', size=0.0), r'fraction of the short side in \(0, 1\]'),
        (dict(type='ColorDrop', keep=3), 'keep 1 or 2 of three channels, got 3'),
        (
            dict(type='AutoAugment', policy='mnist'),
            "policy is one of 'imagenet', 'cifar10', 'svhn', got 'mnist'",
        ),
        (dict(type='PaddedCrop', size=0), 'size=0; expected'),
    ],
)
def test_bad_arguments(cfg, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(cfg)
