"""What a survey says of images whose pixels, sizes and copies are known."""

import numpy as np
import pytest
from test_datasets.test_sources import Mine

from mmkernel.datasets import Source, Subset
from mmkernel.datasets.duplicates import duplicates
from mmkernel.datasets.survey import Survey, delivered

RNG = np.random.default_rng(0)


class Given(Source):
    """The images of a list."""

    def __init__(self, images, labels=None):
        super().__init__()
        self.images, self.labels = images, np.full(len(images), -1) if labels is None else labels

    def read(self, i):
        return self.images[i]


def pictures(count, channels=3):
    return [RNG.integers(0, 256, (8 + k % 3, 10, channels), np.uint8) for k in range(count)]


@pytest.mark.parametrize('workers', [0, 2])
def test_sizes_channels_mean_and_std(workers):
    images = pictures(70) + pictures(2, channels=5)
    facts = Survey(Given(images), workers=workers).facts()
    assert (facts['images'], facts['looked_at'], facts['stopped']) == (72, 72, False)
    heights = [len(image) for image in images]
    assert facts['sides']['height'] == dict(min=8, median=np.median(heights), max=10)
    assert facts['sides']['width'] == dict(min=10, median=10, max=10)
    assert facts['sizes'][0] == dict(height=8, width=10, images=heights.count(8))
    assert sorted(facts['channels']) == [3, 5]
    coloured = facts['channels'][3]
    assert coloured['images'] == 70
    mean = np.mean([(x / 255).mean((0, 1)) for x in images[:70]], 0)
    square = np.mean([((x / 255) ** 2).mean((0, 1)) for x in images[:70]], 0)
    np.testing.assert_allclose(coloured['mean'], mean, atol=6e-5)
    np.testing.assert_allclose(coloured['std'], np.sqrt(square - mean**2), atol=6e-5)
    assert facts['images_per_second'] > 0


def test_labels_and_those_without():
    facts = Survey(Given(pictures(5), ['b', 'a', None, 'b', 'b'])).facts()
    assert facts['labels'] == dict(unlabelled=1, classes=2, classes_with_images=2, smallest=1, largest=3)
    assert Survey(Given(pictures(2))).facts()['labels']['largest'] == 0


def test_what_cannot_be_read_is_listed_and_never_replaced():
    survey = Survey(Mine(broken=(1, 4), on_corrupt='skip', count=6))
    assert survey.errors == {f'photo-{i}.png': f'photo-{i}.png cannot be decoded.' for i in (1, 4)}
    assert survey.facts()['channels'][3]['images'] == 4
    floats = Survey(Given([np.zeros((4, 4, 3)), *pictures(1)]))
    assert list(floats.errors) == ['record 0']
    assert 'expected a numpy array, uint8' in floats.errors['record 0']
    nothing = Survey(Mine(broken=range(6), count=6)).facts()
    assert (nothing['sides'], nothing['channels'], nothing['sizes']) == ({}, {}, [])


def test_a_part_is_random_and_its_seed_repeats_it():
    source = Given(pictures(40))
    one, same, other = (Survey(source, limit=10, seed=seed).rows for seed in (1, 1, 2))
    assert one.tolist() == same.tolist() == sorted(set(one.tolist()))
    assert one.tolist() != other.tolist()
    assert len(one) == 10
    assert len(Survey(source, limit=100).rows) == 40


def test_an_interrupt_keeps_what_was_seen():
    def two_batches(batches, total):
        for k, batch in enumerate(batches):
            if k == 2:
                raise KeyboardInterrupt
            yield batch

    survey = Survey(Given(pictures(100)), workers=1, progress=two_batches)
    facts = survey.facts()
    assert (facts['stopped'], facts['looked_at'], facts['channels'][3]['images']) == (True, 64, 64)
    assert len(survey.digests) == len(survey.shapes) == 64


def test_equal_pixels_within_and_between():
    images = pictures(50)
    train = Survey(Given([*images, images[3], images[3], images[7].copy()]))
    flat = images[0].reshape(1, -1, 3)  # the same bytes in another shape
    test = Survey(Given([images[5], flat, *pictures(3), images[3]]))
    found = duplicates(dict(train=train, test=test))
    groups = sorted(sorted(group) for group in found['within']['train'])
    assert groups == [['record 3', 'record 50', 'record 51'], ['record 52', 'record 7']]
    assert found['within']['test'] == []
    ((pair, shared),) = found['between'].items()
    assert pair == 'train and test'
    assert sorted(shared) == [[['record 3', 'record 50', 'record 51'], ['record 5']], [['record 5'], ['record 0']]]


def test_no_two_unreadable_images_are_equal():
    broken = Survey(Mine(broken=(0, 1), count=3))
    assert duplicates(dict(train=broken, test=broken))['within'] == dict(train=[], test=[])
    assert duplicates(dict(train=Survey(Mine(broken=(0, 1), count=2)))) == dict(within=dict(train=[]), between={})


def test_names_of_a_part_are_those_of_its_images():
    part = Subset(Mine(count=30, broken=(2,)), fraction=1.0, seed=0)
    assert list(Survey(part).errors) == ['photo-2.png']


def loader(source, **more):
    views = dict(a=dict(count=2, size=8, crop=dict(type='RandomResizedCrop')))
    return dict(batch_size=4, dataset=dict(type='ViewDataset', source=source, views=views),
                sampler=dict(type='EpochSampler'), **more)  # fmt: skip


def test_what_a_loader_delivers():
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmkernel'):
        found = delivered(loader(dict(type='Digits')) | dict(drop_last=True), seconds=0.05)
        assert found['images'] % 4 == 0
        assert found['images'] >= 4
        assert found['images_per_second'] > 0
        assert found['batches'] == 1437 // 4
        damaged = delivered(loader(Mine(broken=range(6), count=6)), seconds=0.05)
        floats = [delivered(loader(Mine(np.zeros((4, 4, 3))), num_workers=n), seconds=0.05) for n in (0, 1)]
    assert 'cannot be decoded' in damaged['error']
    assert all('expected a numpy array, uint8' in each['error'] for each in floats)
    assert all('\n' not in each['error'] for each in floats)
