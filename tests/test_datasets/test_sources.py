"""What a source promises: uint8 images, whole labels, and substitutes of damaged images that come with all that is theirs."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mmkernel.datasets import (
    CorruptImageError,
    EpochSampler,
    EvaluationDataset,
    Source,
    Subset,
    TransformedSource,
    ViewDataset,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
CROP = dict(type='RandomResizedCrop', scale=(0.5, 1.0))
PLAIN = dict(a=dict(count=1, size=8, crop=CROP))
COLOURED = dict(
    a=dict(count=1, size=8, crop=CROP, ops=dict(j=dict(type='ColorJitter', brightness=0.3, probability=1.0)))
)


class Mine(Source):
    """``count`` records; those in ``broken`` cannot be decoded, all others give ``image``, by default their own number."""

    def __init__(self, image=None, count=6, broken=(), on_corrupt='raise', **given):
        super().__init__(on_corrupt)
        self.image_given, self.broken, self.classes = image, set(broken), list('abcdefghijklmnopqrstuvwxyz')
        self.labels = np.arange(count) % 26
        for name, value in given.items():
            setattr(self, name, value)

    def name(self, i):
        return f'photo-{i}.png'

    def read(self, i):
        if i in self.broken:
            raise CorruptImageError(f'{self.name(i)} cannot be decoded.')
        return np.full((12, 10, 3), i, np.uint8) if self.image_given is None else self.image_given


WRONG = {
    'float 0..1': (PIXELS / np.float32(255), r'float32.*np\.rint\(255 \* image\)\.astype\(np\.uint8\)'),
    'float 0..255': (PIXELS.astype(np.float64), 'float64.*scale them; mean and std belong to the model'),
    'normalised': ((PIXELS / 255 - 0.5) / 0.25, 'float64.*undo any normalisation'),
    'NaN': (np.full((4, 4, 3), np.nan, np.float32), 'float32'),
    'half': ((PIXELS / 255).astype(np.float16), 'float16'),
    'int64': (PIXELS.astype(np.int64), r'int64.*image\.astype\(np\.uint8\)'),
    'uint16': (PIXELS.astype(np.uint16) * 257, r'uint16.*// 257'),
    'mask': (PIXELS > 9, r'bool.*255 \*'),
    'two axes': (PIXELS[..., 0], r'\(12, 10\).*image\[\.\.\., None\]'),
    'four axes': (PIXELS[None], r'\(1, 12, 10, 3\)'),
    'channels first': (np.zeros((3, 32, 32), np.uint8), r'\(3, 32, 32\).*transpose\(1, 2, 0\)'),
    'one channel first': (np.zeros((1, 28, 28), np.uint8), r'\(1, 28, 28\).*transpose\(1, 2, 0\)'),
    'no pixel': (np.zeros((0, 4, 3), np.uint8), 'no pixels'),
    'no channel': (np.zeros((4, 4, 0), np.uint8), 'no pixels'),
    'tensor': (torch.zeros(3, 8, 8, dtype=torch.uint8), r'torch\.Tensor.*permute\(1, 2, 0\)'),
    'Pillow': (Image.new('RGB', (4, 4)), r'PIL\.Image\.Image.*to_array'),
    'list': ([[[1, 2, 3]]], 'list'),
}


@pytest.mark.parametrize('image, message', WRONG.values(), ids=WRONG)
def test_what_is_no_uint8_image_is_refused_at_every_door(image, message):
    source = Mine(image)
    doors = [
        lambda: source.image(1),
        lambda: source.sample(1),
        lambda: ViewDataset(source, PLAIN)[0, 1],
        lambda: ViewDataset(source, COLOURED)[0, 1],
        lambda: EvaluationDataset(source)[1],
        lambda: Subset(source, fraction=1.0).image(1),
        lambda: TransformedSource(source, 'rotation').image(1),
    ]
    for door in doors:
        with pytest.raises(
            TypeError, match=rf'Mine.*photo-1\.png.*gave .*expected a numpy array, uint8.*(?s:{message})|{message}'
        ):
            door()


def test_the_error_names_class_record_and_fix():
    with pytest.raises(
        TypeError, match=r'^Mine\.read\(2\), photo-2\.png, gave float32 of shape \(12, 10, 3\); expected a numpy'
    ):
        Mine(WRONG['float 0..1'][0]).image(2)
    assert not isinstance(TypeError, CorruptImageError)
    with pytest.raises(TypeError, match='uint8'):  # never skipped as if it were damaged
        Mine(WRONG['float 0..1'][0], on_corrupt='skip').image(2)


@pytest.mark.parametrize('channels', [1, 2, 4, 10])
@pytest.mark.parametrize('order', ['reversed', 'turned', 'read-only', 'memory-mapped'])
def test_any_layout_of_the_right_array_is_fine(channels, order, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 12, channels), np.uint8)
    if order == 'memory-mapped':
        np.save(tmp_path / 'x.npy', image)
        given = np.load(tmp_path / 'x.npy', mmap_mode='r')
    elif order == 'read-only':
        given = image.copy()
        given.flags.writeable = False
    else:
        given = image[::-1, ::-1] if order == 'reversed' else np.rot90(image)
    expected = EvaluationDataset(Mine(np.ascontiguousarray(given)))[0]['inputs'][0]
    assert torch.equal(EvaluationDataset(Mine(given))[0]['inputs'][0], expected)
    a, b = (ViewDataset(Mine(x), COLOURED)[0, 0]['inputs'][0] for x in (given, np.ascontiguousarray(given)))
    assert torch.equal(a, b)


class Halve:
    """A user's own step that forgets the type."""

    def draw(self, rng, height, width):
        return True

    def size_after(self, height, width):
        return height, width

    def apply(self, image, params):
        return image / 2

    def __call__(self, image):
        return image / 2


def test_steps_of_the_users_own_keep_the_type():
    data = ViewDataset(Mine(PIXELS), PLAIN)
    data.views['a'].chain.steps.append(Halve())
    with pytest.raises(TypeError, match='Halve gave float64'):
        data[0, 0]
    with pytest.raises(TypeError, match=r'Halve of photo-0\.png gave float64'):
        EvaluationDataset(Mine(PIXELS), Halve())[0]
    with pytest.raises(TypeError, match=r'Halve of photo-0\.png gave float64'):
        TransformedSource(Mine(PIXELS), 'grey', Halve()).image(0)


def test_a_damaged_image_is_replaced_with_all_that_belongs_to_it():
    targets = np.eye(26, dtype=np.int8)[:6]
    source = Mine(count=6, broken=(1, 2, 5), on_corrupt='skip', targets=targets)
    with pytest.warns(
        UserWarning, match=r'photo-1\.png cannot be decoded\. Using photo-2\.png instead \(1 of at most 10\)'
    ):
        found = [ViewDataset(source, PLAIN)[0, 1], EvaluationDataset(source)[1]]
    for sample in found:
        assert (sample['sample_index'], sample['label']) == (3, 3)
        assert sample['targets'].tolist() == targets[3].tolist()
        assert all((image == 3).all() for image in sample['inputs'])
    with pytest.warns(UserWarning, match='Using photo-0'):
        assert EvaluationDataset(source)[5]['sample_index'] == 0  # wraps round
    with warnings.catch_warnings(action='error'):  # each is said once
        assert [source.record(i)[0] for i in range(-6, 6)] == [0, 3, 3, 3, 4, 0] * 2
    assert source.substitutes == {1: 3, 2: 3, 5: 0}


def test_a_substitute_of_a_subset_comes_from_the_subset():
    source = Mine(count=6, broken=(1, 4), on_corrupt='skip')
    part, rest = Subset(source, fraction=1.0), Subset(source, fraction=1.0)
    part.rows, part.labels = np.array([0, 1, 4]), np.array([0, 1, 4])
    rest.rows, rest.labels = np.array([2, 3, 5]), np.array([2, 3, 5])
    with pytest.warns(UserWarning, match='instead'):
        assert part.sample(1)[1] == part.sample(2)[1] == 0
    assert part.substitutes == {1: 0, 2: 0}
    assert not rest.substitutes
    changed = TransformedSource(source, 'noise', seed=1)
    with pytest.warns(UserWarning, match='instead'):
        assert changed.record(1)[0] == 2


def test_only_so_many_images_may_be_left_out():
    broken = range(12)
    with warnings.catch_warnings(action='ignore'):
        source = Mine(count=60, broken=broken, on_corrupt='skip')
        with pytest.raises(
            CorruptImageError, match=r"11 of 60 images .*'skip' leaves out at most 10.*on_corrupt=22.*photo-10"
        ):
            source.record(0)
        assert Mine(count=60, broken=broken, on_corrupt=12).record(0)[0] == 12
        with pytest.raises(CorruptImageError, match='at most 3'):
            Mine(count=60, broken=broken, on_corrupt=3).record(0)
        assert Mine(count=2000, broken=broken, on_corrupt='skip').record(0)[0] == 12  # one in a hundred
        with pytest.raises(CorruptImageError, match='none of the 3 images can be decoded'):
            Mine(count=3, broken=range(3), on_corrupt='skip').record(0)
    for wrong in ('ignore', 0, -1, True, None, 2.5):
        with pytest.raises(ValueError, match='on_corrupt must be'):
            Mine(on_corrupt=wrong)


@pytest.mark.parametrize('start', ['fork', pytest.param('spawn', marks=pytest.mark.slow)])
def test_workers_share_what_they_found(start, capfd):
    data = ViewDataset(Mine(count=8, broken=(2,), on_corrupt='skip'), PLAIN)
    sampler = EpochSampler(data, shuffle=False)
    for _ in range(2):  # other workers in each epoch
        loader = DataLoader(data, 2, sampler=sampler, num_workers=2, multiprocessing_context=start)
        seen = torch.cat([batch['sample_index'] for batch in loader]).tolist()
        assert seen == [0, 1, 3, 3, 4, 5, 6, 7]
    assert data.source.substitutes == {2: 3}
    if start == 'spawn':  # forked workers have pytest's own warnings
        assert capfd.readouterr().err.count('photo-2.png cannot be decoded') == 1
    assert pickle.loads(pickle.dumps(data)).source.substitutes == {2: 3}
