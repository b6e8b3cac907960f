import pickle

import numpy as np
import pytest

from mmkernel.datasets import Digits, TransformedSource
from mmkernel.datasets.sources import Source
from mmkernel.registry import DATASETS


class Photos(Source):
    def __init__(self, count=200, size=(8, 8), channels=3):
        super().__init__()
        self.labels, self.classes, self.shape = np.zeros(count, np.int64), [], (*size, channels)

    def read(self, i):
        return np.random.default_rng(i).integers(40, 200, self.shape, np.uint8)

    def name(self, i):
        return f'photo {i}'


@pytest.mark.parametrize(
    'task, odds', [('grey', [0.8, 0.2]), ('rotation', [0.25] * 4), ('noise', [0.5] * 2), ('sobel', [0.5] * 2)]
)
def test_label_is_what_was_done(task, odds):
    plain, source = Photos(), TransformedSource(Photos(), task, seed=3)
    share = np.bincount(source.labels, minlength=len(odds)) / len(source)
    np.testing.assert_allclose(share, odds, atol=0.11)
    for i in range(40):
        before, (after, label) = plain.image(i), source.sample(i)
        assert label == source.label(i)
        if task == 'rotation':
            np.testing.assert_array_equal(after, np.rot90(before, label))
        elif label == 0:
            np.testing.assert_array_equal(after, before)
        else:
            assert (after != before).any()
            if task == 'grey':
                assert (after == after[..., :1]).all()
            if task == 'noise':
                assert abs(np.std(after.astype(float) - before) - 25) < 6


def test_depends_on_the_seed_and_the_image_alone():
    def made(seed):
        return TransformedSource(Photos(), 'noise', seed=seed)

    np.testing.assert_array_equal(made(0).labels, made(0).labels)
    assert (made(0).labels != made(1).labels).any()
    noisy = int(np.flatnonzero(made(0).labels)[0])
    first = made(0).image(noisy)
    source = made(0)
    source.image(0)
    np.testing.assert_array_equal(source.image(noisy), first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).image(noisy), first)


def test_from_a_config_after_a_transform():
    cfg = dict(
        type='TransformedSource', source=dict(type='Digits', split='test', size=16), task='rotation',
        transform=dict(type='CenterView', resize=None, crop=12),
    )  # fmt: skip
    source = DATASETS.build(cfg)
    assert len(source) == len(Digits('test'))
    assert source.image(0).shape == (12, 12, 1)
    assert source.name(0).startswith('digit ')


def test_what_cannot_be_done():
    with pytest.raises(ValueError, match='task'):
        TransformedSource(Photos(), 'blur')
    with pytest.raises(ValueError, match=r'1 channel.*not defined'):
        TransformedSource(Photos(channels=1), 'grey').image(0)
    oblong = TransformedSource(Photos(size=(6, 9)), 'rotation')
    turned = int(np.flatnonzero(oblong.labels % 2)[0])
    with pytest.raises(ValueError, match=r'6 x 9 would change its size'):
        oblong.image(turned)
