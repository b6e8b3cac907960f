import multiprocessing
import os
import pickle
import warnings

import numpy as np
import pytest
from filelock import FileLock

from mmkernel.datasets.kept_arrays import Kept, kept


def made():
    return dict(
        numbers=np.arange(7, dtype=np.int64),
        names=np.array([b'a', b'bcd']),
        none=np.zeros((0, 3), np.float32),
        grid=np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::2],
    )


def never():
    raise AssertionError('made again')


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


@pytest.fixture
def place(tmp_path):
    return tmp_path / 'kept' / 'index'


def test_made_once_and_mapped_afterwards(place):
    assert_same(kept([place], dict(size=3), made), made())
    again = kept([place], dict(size=3), never)
    assert_same(again, made())
    assert isinstance(again, Kept)
    assert not again['numbers'].flags.writeable
    assert sorted(p.name for p in place.parent.iterdir()) == ['.index.lock', 'index']


def test_made_again_where_what_they_depend_on_has_changed(place):
    kept([place], dict(size=3), made)
    assert_same(kept([place], dict(size=(4,)), lambda: dict(x=np.ones(2))), dict(x=np.ones(2)))
    kept([place], dict(size=[4]), never)


@pytest.mark.parametrize('damage', ['short', 'byte', 'other', 'empty', 'header', 'long'])
def test_a_damaged_file_is_made_again_with_a_warning(place, damage):
    kept([place], {}, made)
    data = bytearray(place.read_bytes())
    if damage == 'byte':
        data[-70] ^= 1
    elif damage == 'header':
        data[30] ^= 255
    else:
        data = dict(short=data[:-64], other=b'x' * 300, empty=b'', long=data + b'\0')[damage]
    place.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match='is damaged .* made again'):
        assert_same(kept([place], {}, made), made())
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        kept([place], {}, never)


def test_the_first_place_that_can_be_written_and_any_that_can_be_read(tmp_path):
    (tmp_path / 'file').write_text('no folder')
    places = [tmp_path / 'file' / 'index', tmp_path / 'second' / 'index', tmp_path / 'third' / 'index']
    kept(places, {}, made)
    assert places[1].is_file()
    assert not places[2].exists()
    kept([places[2], places[1]], {}, never)
    with pytest.warns(UserWarning, match='cannot be kept in .*no folder can be written.*MMKERNEL_HOME'):
        assert_same(kept(places[:1], {}, made), made())


def test_what_no_longer_fits_is_made_again(place):
    kept([place], {}, made)
    kept([place], {}, never, lambda arrays: arrays['numbers'][-1] == 6)
    assert_same(kept([place], {}, lambda: dict(x=np.ones(2)), lambda arrays: False), dict(x=np.ones(2)))

    def wrong(arrays):
        raise ValueError('too long')

    with pytest.warns(UserWarning, match=r'is damaged \(too long\): it is made again'):
        assert_same(kept([place], {}, made, wrong), made())


def test_another_process_opens_the_file_again(place):
    found = kept([place], {}, made)
    sent = pickle.dumps(found)
    assert len(sent) < 300
    assert_same(pickle.loads(sent), made())
    kept([place], dict(new=1), lambda: dict(x=np.ones(2)))
    assert_same(found, made())  # what is mapped stays
    with pytest.raises(ValueError, match='was written anew while processes started'):
        pickle.loads(sent)


def test_python_objects_are_refused(place):
    with pytest.raises(TypeError, match='names holds Python objects'):
        kept([place], {}, lambda: dict(names=np.array(['a', None], object)))
    assert not place.exists()


def count_makes(place, started, made_by):
    started.wait()

    def make():
        made_by.put(os.getpid())
        return made()

    assert_same(kept([place], {}, make), made())


def test_of_processes_that_start_together_one_makes_them(place):
    context = multiprocessing.get_context('fork')
    started, made_by = context.Barrier(4), context.Queue()
    processes = [context.Process(target=count_makes, args=(place, started, made_by)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert isinstance(made_by.get(timeout=5), int)
    assert made_by.empty()


def test_a_lock_that_cannot_be_opened_leads_to_the_next_place(tmp_path, place):
    """As that of another user in a folder that all may write."""
    (place.parent / '.index.lock').mkdir(parents=True)
    other = tmp_path / 'other/index'
    assert_same(kept([place, other], dict(size=3), made), made())
    assert_same(kept([place, other], dict(size=3), never), made())
    assert other.is_file()
    with FileLock(other.with_name('.index.lock'), timeout=0):
        pass  # it was given back
