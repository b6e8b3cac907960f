"""Many paths in arrays: the same strings, whatever is taken of them."""

import pickle

import numpy as np
import pytest

from mmkernel.datasets.index_file import write_index
from mmkernel.datasets.paths import CHUNK, Paths, check

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


def test_a_copy_of_a_stored_one_is_its_file(tmp_path):
    crc = write_index(tmp_path / 'x.index', {}, Paths.of(['a/1.png', 'b/2.png']).arrays)
    paths = Paths.stored(tmp_path / 'x.index', crc)
    sent = pickle.dumps(paths.take(np.array([1])))
    assert b'1.png' not in sent
    assert list(pickle.loads(sent)) == ['b/2.png']
    write_index(tmp_path / 'x.index', {}, Paths.of(['a/1.png', 'b/3.png']).arrays)
    assert paths[1] == 'b/2.png'  # what is mapped stays
    with pytest.raises(ValueError, match='was written anew'):
        pickle.loads(sent)


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('names', None, 'has no array names of uint8'),
        ('ends', np.array([0, 5, 10], np.int32), 'has no array ends of int64'),
        ('ends', np.array([0, 5, 11]), 'out of its text'),
        ('ends', np.array([0, 11, 10]), 'out of its text'),
        ('ends', np.array([-1, 5, 10]), 'out of its text'),
        ('ends', np.array([0, 10]), 'out of its text'),
        ('folder_ends', np.array([], np.int64), 'out of its text'),
        ('folder', np.array([0, 2], np.int32), 'numbers of folders'),
        ('folder', np.array([-1, 0], np.int32), 'numbers of folders'),
        ('names', np.frombuffer(b'/etc/passwd', np.uint8)[:10], 'names that lead elsewhere'),
        ('folders', np.frombuffer(b'../b', np.uint8), 'folders that lead elsewhere'),
        ('folders', np.frombuffer(b'a/..', np.uint8), 'folders that lead elsewhere'),
        ('folders', np.frombuffer(b'a//b', np.uint8), 'folders that lead elsewhere'),
    ],
)
def test_arrays_of_a_foreign_file_are_checked(key, value, message):
    arrays = Paths.of(['a/1.png', 'b/2.png']).arrays
    check(arrays)
    with pytest.raises(ValueError, match=message):
        check({**arrays, key: value} if value is not None else {k: v for k, v in arrays.items() if k != key})
