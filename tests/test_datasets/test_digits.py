import hashlib

import numpy as np

from mmkernel.datasets import Digits


def test_split_is_fixed_stratified_and_disjoint():
    train, test = Digits('train'), Digits('test')
    assert (len(train), len(test)) == (1437, 360) == (Digits.expected_length(), Digits.expected_length(split='test'))
    assert not set(train.members) & set(test.members)
    assert np.bincount(test.labels).min() >= 34
    assert hashlib.md5(test.members.astype('<i8').tobytes()).hexdigest() == '0bd339e2197b5d4b8fe356294424736f'


def test_images():
    source = Digits('test', size=16)
    assert source.image(0).shape == (16, 16, 1)
    assert source.image(0).dtype == np.uint8
    assert source.classes == [str(k) for k in range(10)]
    assert source.image(3).max() > 200
    native = Digits('test', size=8)
    assert set(np.unique(native.images)) <= {round(k * 255 / 16) for k in range(17)}
    assert 'test 5' in native.name(5)
