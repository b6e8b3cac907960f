"""Many paths in arrays: the same strings, whatever is taken of them."""

import pickle

import numpy as np
import pytest

from mmkernel.datasets.kept_arrays import kept
from mmkernel.datasets.paths import CHUNK, Paths

NAMES = ['', 'a', 'ü' * 50, 'with space/\udcff.jpg', '/absolute/x.png', 'a/b/c.png', '../up.png', 'a/b/', 'a']


def test_strings_come_back():
    paths = Paths.of(NAMES)
    assert [paths[i] for i in range(len(paths))] == NAMES == list(paths)
    assert paths[-1] == 'a'
    assert paths == NAMES
    assert paths != NAMES[:-1]
    assert paths != [*NAMES[:-1], 'b']
    with pytest.raises(IndexError):
        paths[len(NAMES)]
    assert list(Paths.of([])) == []


def test_taken_and_put_under_a_root():
    paths = Paths.of(NAMES)
    some = paths.take(np.array([5, 2, 5])).under('/root')
    assert list(some) == [some[i] for i in range(3)] == ['/root/a/b/c.png', '/root/' + 'ü' * 50, '/root/a/b/c.png']
    assert some.take(np.array([1]))[0] == '/root/' + 'ü' * 50
    assert some.arrays is paths.arrays
    assert pickle.loads(pickle.dumps(some)) == some


def test_more_than_are_made_at_once():
    names = [f'{k % 7}/{k}.png' for k in range(CHUNK + 3)]
    paths = Paths.of(names)
    assert list(paths) == names
    rows = np.arange(len(names))[::-1].copy()
    assert list(paths.take(rows)) == names[::-1]


def test_a_copy_of_kept_ones_is_their_file(tmp_path):
    paths = Paths(kept([tmp_path / 'x.index'], {}, lambda: Paths.of(['a/1.png', 'b/2.png']).arrays))
    sent = pickle.dumps(paths.take(np.array([1])))
    assert b'1.png' not in sent
    assert list(pickle.loads(sent)) == ['b/2.png']


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('names', np.zeros(10, np.int8), 'out of the text'),
        ('ends', np.array([0, 5, 10], np.int32), 'out of the text'),
        ('ends', np.array([0, 5, 11]), 'out of the text'),
        ('ends', np.array([0, 11, 10]), 'out of the text'),
        ('ends', np.array([0, 10]), 'out of the text'),
        ('folder_ends', np.array([], np.int64), 'out of the text'),
        ('folder', np.array([0, 2], np.int32), 'numbers of folders'),
        ('folder', np.array([-1, 0], np.int32), 'numbers of folders'),
        ('folder', np.array([0, 1]), 'numbers of folders'),
        ('names', np.frombuffer(b'/etc/passwd', np.uint8)[:10], 'names lead out'),
        ('folders', np.frombuffer(b'../b', np.uint8), 'names lead out'),
        ('folders', np.frombuffer(b'a/..', np.uint8), 'names lead out'),
        ('folders', np.frombuffer(b'a//b', np.uint8), 'names lead out'),
    ],
)
def test_arrays_of_a_foreign_file_are_checked(key, value, message):
    arrays = Paths.of(['a/1.png', 'b/2.png']).arrays
    Paths(arrays).check()
    with pytest.raises(ValueError, match=message):
        Paths({**arrays, key: value}).check()
