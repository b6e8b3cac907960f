"""Every file once, whatever links there are, in an order of its own."""

import os
import random
import warnings

import pytest

from mmkernel.datasets.walk import walk


@pytest.fixture
def tree(tmp_path):
    """x/{a,b}/{0,1}.png, and a neighbour y/c/2.png."""
    for path in ('x/b/1.png', 'x/a/0.png', 'x/b/0.png', 'x/a/1.png', 'y/c/2.png'):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    return tmp_path / 'x'


PLAIN = ['a/0.png', 'a/1.png', 'b/0.png', 'b/1.png']


def test_in_sorted_order_whatever_the_file_system_says(tree, monkeypatch):
    real = os.scandir

    class Shuffled:
        def __init__(self, path):
            self.found = sorted(real(path), key=lambda entry: random.Random(entry.name).random())

        def __enter__(self):
            return iter(self.found)

        def __exit__(self, *_):
            return None

    (tree / 'z.png').write_text('')
    (tree / 'a.png').write_text('')
    (tree / 'a' / 'deep').mkdir()
    (tree / 'a' / 'deep' / '9.png').write_text('')
    monkeypatch.setattr(os, 'scandir', Shuffled)
    assert walk(tree) == ['a.png', 'z.png', 'a/0.png', 'a/1.png', 'a/deep/9.png', 'b/0.png', 'b/1.png']


@pytest.mark.parametrize(
    'link, target',
    [
        ('latest', '.'), ('a/latest', '.'), ('a/up', '..'), ('a/top', '../..'), ('far', '/'), ('itself', 'itself'),
        ('a/other', '../b'), ('A', 'a'), ('z', 'a'), ('round', '../x'),
    ],
)  # fmt: skip
@pytest.mark.parametrize('absolute', [False, True])
def test_loops_and_second_ways_give_no_second_image(tree, link, target, absolute):
    (tree / link).symlink_to((tree / link).parent / target if absolute else target)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        assert walk(tree, ('.png',)) == PLAIN
    told = f"1 folder(s) or file(s) lead to what is listed under another name and are left out, e.g. '{link}'"
    assert [told in str(w.message) for w in said] == [True] * (link != 'itself')


def test_two_folders_that_lead_to_each_other(tree):
    (tree / 'a' / 'b').symlink_to('../b')
    (tree / 'b' / 'a').symlink_to('../a')
    with pytest.warns(UserWarning, match='2 folder'):
        assert walk(tree) == PLAIN


def test_what_lies_elsewhere_is_followed_once(tree):
    (tree / 'm').symlink_to('../y')
    (tree / 'n').symlink_to('../y/c')
    (tree.parent / 'y' / 'c' / 'back').symlink_to(tree)
    with pytest.warns(UserWarning, match=r"3 folder.*'m/c/back'|3 folder.*'m/c'|2 folder"):
        found = walk(tree)
    assert sorted(found)[:4] == PLAIN
    assert len(found) == 5
    assert found[4] in ('m/c/2.png', 'n/2.png')
    with pytest.warns(UserWarning, match='are left out'):
        assert walk(tree) == found


def test_through_a_link_to_the_root(tree):
    (tree.parent / 'data').symlink_to(tree)
    assert walk(tree.parent / 'data') == walk(str(tree) + '/./') == PLAIN


def test_links_to_files(tree):
    (tree / 'b' / '9.png').symlink_to('../a/0.png')
    (tree / 'b' / 'new.png').symlink_to('../../y/c/2.png')
    (tree / 'b' / 'new2.png').symlink_to('new.png')
    (tree / 'b' / 'dead.png').symlink_to('nowhere.png')
    with pytest.warns(UserWarning, match='are left out') as said:
        assert walk(tree) == [*PLAIN, 'b/new.png']
    twice, dead = (str(w.message) for w in said)
    assert "2 folder(s) or file(s) lead to what is listed under another name and are left out, e.g. 'b/9.png'" in twice
    assert "1 folder(s) or file(s) are links to nothing and are left out, e.g. 'b/dead.png'" in dead


def test_a_store_of_files_without_their_ending_does_not_hide_the_links_to_them(tree):
    (tree / 'blobs').mkdir()
    (tree / 'blobs' / '5f3a').write_text('')
    (tree / 'a' / '5.png').symlink_to('../blobs/5f3a')
    assert walk(tree, ('.png',)) == ['a/0.png', 'a/1.png', 'a/5.png', 'b/0.png', 'b/1.png']


def test_hidden_names_are_left_out(tree):
    for path in ('.git/1.png', '.x.png', 'a/.cache/deep/2.png', 'a/._0.png'):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text('')
    assert walk(tree) == PLAIN
    (tree / 'shown').symlink_to('.git')  # asked for by name
    assert walk(tree) == [*PLAIN, 'shown/1.png']


def test_a_folder_that_cannot_be_read_is_no_empty_folder(tree, monkeypatch):
    real = os.scandir

    def refuse(path):
        if str(path).endswith('/b'):
            raise PermissionError(13, 'Permission denied', path)
        return real(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(PermissionError, match='/b'):
        walk(tree)
