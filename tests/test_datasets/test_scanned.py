"""A large folder is listed once; the index shows what came, went or was renamed, and is never trusted."""

import os
import pickle
import shutil
import warnings

import numpy as np
import pytest
from multiprocess import run_processes

from mmkernel.datasets import ImageFolder, Subset, scanned
from mmkernel.datasets.kept_arrays import kept
from mmkernel.datasets.scanned import about_files, scan
from mmkernel.datasets.walk import walk

LONG_AGO = 1_600_000_000


def age(root):
    """As if nothing had happened lately."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, (LONG_AGO, LONG_AGO))


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """c0 .. c4 with 6 files each, a file of another kind, an empty folder; an index is kept from 5 files on."""
    monkeypatch.setattr(scanned, 'INDEX_FROM', 5)
    monkeypatch.setenv('MMKERNEL_HOME', str(tmp_path / 'home'))
    for k in range(30):
        (tmp_path / 'data' / f'c{k % 5}').mkdir(parents=True, exist_ok=True)
        (tmp_path / 'data' / f'c{k % 5}' / f'{k}.png').write_text('')
    (tmp_path / 'data' / 'notes.txt').write_text('')
    (tmp_path / 'data' / 'empty').mkdir()
    age(tmp_path / 'data')
    return tmp_path / 'data'


@pytest.fixture
def walks(monkeypatch):
    """The folders that were listed."""
    done = []

    def counted(root, suffixes, *most):
        done.extend([root] * (not most))
        return walk(root, suffixes, *most)

    monkeypatch.setattr(scanned, 'walk', counted)
    return done


def index(tree):
    (file,) = (tree / '.mmkernel').glob('*.index')
    return file


def test_a_second_start_lists_nothing(tree, walks):
    first, second = scan(tree, ('.png',)), scan(tree, ('.png',))
    assert len(walks) == 1
    assert first == second == walk(tree, ('.png',))
    assert about_files(second)['skipped'] == {'.txt': 1}
    assert os.stat(tree).st_mtime_ns == LONG_AGO * 10**9  # the index leaves no trace on the data's time
    assert first.arrays.file == second.arrays.file == index(tree)  # which all processes map
    assert len(scan(tree, ('.txt',))) == 1  # few: no index
    assert len(walks) == 1


def test_a_small_folder_has_no_index(tree, walks, monkeypatch):
    monkeypatch.setattr(scanned, 'INDEX_FROM', 31)
    assert len(scan(tree, ('.png',))) == 30
    assert walks == []  # but once, up to 31 files
    assert not (tree / '.mmkernel').exists()


CHANGES = dict(
    added=lambda tree: (tree / 'c1' / 'new.png').write_text(''),
    added_deep=lambda tree: (tree / 'empty' / 'new.png').write_text(''),
    gone=lambda tree: (tree / 'c1' / '1.png').unlink(),
    renamed=lambda tree: (tree / 'c1' / '1.png').rename(tree / 'c1' / 'one.png'),
    moved=lambda tree: (tree / 'c1' / '1.png').rename(tree / 'c2' / '1.png'),
    new_folder=lambda tree: shutil.copytree(tree / 'c1', tree / 'c9'),
    folder_gone=lambda tree: shutil.rmtree(tree / 'c1'),
    folder_renamed=lambda tree: (tree / 'c1').rename(tree / 'c8'),
)


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_a_change_is_noticed(tree, walks, change):
    before = scan(tree, ('.png',))
    change(tree)
    after = scan(tree, ('.png',))
    assert len(walks) == 2
    assert after == walk(tree, ('.png',))
    assert after != before
    age(tree)
    scan(tree, ('.png',))
    assert scan(tree, ('.png',)) == after


def test_a_folder_that_changed_just_now_may_change_again_unseen(tree, walks):
    os.utime(tree / 'c3')
    for _ in range(2):
        scan(tree, ('.png',))
    assert len(walks) == 2


def test_what_links_lead_to_is_watched_too(tree, walks):
    shutil.copytree(tree / 'c1', tree.parent / 'elsewhere')
    (tree / 'far').symlink_to('../elsewhere')
    (tree / 'again').symlink_to('c0')
    age(tree)
    age(tree.parent / 'elsewhere')
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 folder.* left out, e.g. 'again'"):  # said at every start
            assert len(scan(tree, ('.png',))) == 36
    assert len(walks) == 1
    (tree.parent / 'elsewhere' / 'x.png').write_text('')
    with pytest.warns(UserWarning, match='left out'):
        assert len(scan(tree, ('.png',))) == 37


DAMAGES = dict(
    empty=lambda data: b'',
    text=lambda data: b'not an index',
    pickle=lambda data: pickle.dumps(['c0/0.png']),
    cut=lambda data: data[: len(data) // 2],
    flipped=lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    longer=lambda data: data + b'x',
)


@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_index_is_made_again(tree, walks, damage):
    first = scan(tree, ('.png',))
    file = index(tree)
    whole = file.read_bytes()
    file.unlink()  # a mapped file is replaced, never written into
    file.write_bytes(damage(whole))
    with pytest.warns(UserWarning, match=r"'.*\.index' is damaged .*: it is made again") as said:
        assert scan(tree, ('.png',)) == first
    assert len(said) == 1
    with warnings.catch_warnings(action='error'):
        assert scan(tree, ('.png',)) == first
    assert len(walks) == 2


def test_an_index_of_other_files_is_not_used(tree, walks):
    scan(tree, ('.png',))
    texts, _ = scanned.index_places(str(tree), dict(layout=scanned.LAYOUT, suffixes=['.txt']))
    shutil.copy(index(tree), texts)
    assert list(scan(tree, ('.txt',))) == ['notes.txt']


def test_names_of_a_forged_index_do_not_lead_elsewhere(tree, walks):
    first = scan(tree, ('.png',))
    arrays = dict(first.arrays)
    arrays['names'] = np.where(arrays['names'] == ord('.'), ord('/'), arrays['names']).astype(np.uint8)
    place, about = index(tree), dict(layout=scanned.LAYOUT, suffixes=['.png'])
    place.unlink()
    kept([place], about, lambda: arrays)
    with pytest.warns(UserWarning, match=r'is damaged \(names lead out of the folder\)'):
        assert scan(tree, ('.png',)) == first


def test_data_that_cannot_be_written_have_their_index_in_the_cache_folder(tree, walks):
    (tree / '.mmkernel').write_text('in the way')
    age(tree)
    for _ in range(2):
        assert len(scan(tree, ('.png',))) == 30
    assert len(walks) == 1
    assert len([*(tree.parent / 'home' / 'indexes').glob('*.index')]) == 1
    moved = tree.rename(tree.parent / 'other')
    assert len(scan(moved, ('.png',))) == 30  # another folder
    assert len(walks) == 2


def test_without_any_place_the_files_are_listed_each_time(tree, walks):
    (tree / '.mmkernel').write_text('in the way')
    (tree.parent / 'home').write_text('in the way')
    for _ in range(2):
        with pytest.warns(UserWarning, match=r'An index cannot be kept in .*no folder can be written'):
            assert len(scan(tree, ('.png',))) == 30
    assert len(walks) == 2


def test_moved_data_bring_their_index(tree, walks):
    first = scan(tree, ('.png',))
    moved = tree.rename(tree.parent / 'moved')
    assert scan(moved, ('.png',)) == first
    assert len(walks) == 1


def _start(rank, world_size, root):
    scanned.INDEX_FROM, listed = 5, []
    scanned.walk = lambda *given: listed.extend(given[2:] or ['all']) or walk(*given)
    return [list(scan(root, ('.png',))) for _ in range(20)][-1], listed.count('all')


def test_many_processes_at_once(tree):
    found = run_processes(_start, 3, str(tree))
    assert [names for names, _ in found] == [list(walk(tree, ('.png',)))] * 3
    assert sum(listed for _, listed in found) == 1  # one lists, the others wait and read


def test_a_source_from_the_index_is_the_source(tree, walks):
    sources = [ImageFolder(str(tree), labels=True) for _ in range(2)]
    assert len(walks) == 1
    for source in (*sources, pickle.loads(pickle.dumps(sources[1]))):
        assert source.classes == [f'c{k}' for k in range(5)]
        assert source.labels.tolist() == np.repeat(np.arange(5), 6).tolist()
        assert source.name(29) == str(tree / 'c4' / '9.png')
        assert source.skipped == {'.txt': 1}
    assert len(pickle.dumps(sources[1])) < 2000
    part = Subset(sources[1], names=['c4/9.png', '8.png'])
    assert list(part.file_names()) == ['c3/8.png', 'c4/9.png']
    assert list(part.image_files()) == [str(tree / name) for name in part.file_names()]
