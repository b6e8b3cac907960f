"""A list with labels: images in its order, classes by name, and an error for each way in which lists go wrong."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from mmkernel.datasets import ImageList, image_list, names, scanned
from mmkernel.datasets.kept_arrays import kept
from mmkernel.registry import DATASETS

HERE = ['x/0.png', 'x/1.png', 'y/0.png', 'y/2.png', 'y/with, comma.png', 'y/one more.png']


@pytest.fixture
def root(tmp_path):
    for k, path in enumerate(HERE):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new('RGB', (2, 2), (k, 0, 0)).save(tmp_path / path)
    return tmp_path


@pytest.fixture
def listed(root):
    """The source of a list of this content."""

    def read(content, file='list.txt', **options):
        (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return ImageList(str(root / file), **options)

    return read


def pairs(source):
    labels = [source.classes[k] if k >= 0 else None for k in source.labels.tolist()]
    return list(zip(source.file_names(), labels, strict=True))


LINES = 'y/2.png,cat\nx/0.png,dog\nx/1.png,cat\n'
WANTED = [('y/2.png', 'cat'), ('x/0.png', 'dog'), ('x/1.png', 'cat')]
FORMATS = {
    'comma': LINES,
    'header': f'path,label\n{LINES}',
    'other header': f'photo,species\n{LINES}',
    'label first': 'species,file\ncat,y/2.png\ndog,x/0.png\ncat,x/1.png\n',
    'many columns': 'id,class,split,file_name\n2,cat,train,y/2.png\n0,dog,train,x/0.png\n1,cat,train,x/1.png\n',
    'space': LINES.replace(',', ' '),
    'spaces': LINES.replace(',', '   '),
    'tab': LINES.replace(',', '\t'),
    'semicolon': LINES.replace(',', ';'),
    'Windows': LINES.replace('/', '\\').replace('\n', '\r\n'),
    'mark': b'\xef\xbb\xbf' + f'path,label\n{LINES}'.encode(),
    'UTF-16': f'path,label\n{LINES}'.encode('utf-16'),
    'dots, blanks, comments': '# mine\n\n./y/2.png,cat\n./x/0.png,dog\n\n  # more\n x/1.png , cat \n',
    'quotes': '"path","label"\n"y/2.png","cat"\n"x/0.png","dog"\n"x/1.png","cat"\n',
    'alone': '2.png,cat\nx/0.png,dog\n1.png,cat\n',
    'json pairs': json.dumps(WANTED),
    'json records': json.dumps([dict(file=file, label=label) for file, label in WANTED]),
    'json map': json.dumps(dict(WANTED)),
    'json lines': '\n'.join(json.dumps(dict(image=file, category=label)) for file, label in WANTED),
}


@pytest.mark.parametrize('content', FORMATS.values(), ids=FORMATS)
def test_everyday_formats(listed, content):
    source = listed(content, labels=True)
    assert source.classes == ['cat', 'dog']
    assert pairs(source) == WANTED
    assert source.image(0)[0, 0, 0] == 3
    assert listed(content).labels.tolist() == [-1, -1, -1]


def test_by_class_in_json(listed):
    assert pairs(listed(json.dumps(dict(dog=['x/0.png'], cat=['y/2.png', 'x/1.png'])), labels=True)) == [
        ('x/0.png', 'dog'), ('y/2.png', 'cat'), ('x/1.png', 'cat')]  # fmt: skip


def test_names_and_labels_with_spaces_and_commas(listed):
    assert pairs(listed('"y/with, comma.png",cat\nx/0.png,"dog, big"\n', labels=True)) == [
        ('y/with, comma.png', 'cat'), ('x/0.png', 'dog, big')]  # fmt: skip
    assert pairs(listed('y/one more.png 7\nx/0.png 3\n', labels=True)) == [('y/one more.png', '7'), ('x/0.png', '3')]
    assert pairs(listed('x/1.png red fox\nx/0.png cat\n', labels=True)) == [('x/1.png', 'red fox'), ('x/0.png', 'cat')]


def test_the_column_by_its_header(listed):
    table = 'file,label,Fine Label\nx/0.png,animal,dog\nx/1.png,animal,cat\n'
    assert listed(table, labels=True).classes == ['animal']
    assert listed(table, labels='fine label').classes == ['cat', 'dog']
    with pytest.raises(ValueError, match="has no column of labels 'breed'. Expected lines such as path,label"):
        listed(table, labels='breed')


def test_numbers_keep_their_names_and_their_order(listed):
    source = listed('x/0.png 10\nx/1.png 9\ny/0.png 10\ny/2.png -1\n', labels=True)
    assert (source.classes, source.labels.tolist()) == (['9', '10'], [1, 0, 1, -1])
    assert listed('a,b\nx/0.png,1.0\nx/1.png,2.0\n', labels=True).classes == ['1', '2']


def test_given_classes_fix_the_order(listed):
    classes = ['dog', 'fox', 'cat']
    assert listed(LINES, labels=True, classes=classes).labels.tolist() == [2, 0, 2]
    assert listed('x/0.png 1\nx/1.png 0\n', labels=True, classes=classes).labels.tolist() == [1, 0]
    source = listed('x/0.png 1\nx/1.png 5\n', labels=True, classes=['5', '1'])
    assert (source.labels.tolist(), source.classes) == ([1, 0], ['5', '1'])
    with pytest.raises(
        ValueError, match=r"2 of 3 labels .* unknown, e\.g\. 'cat' of 'y/2\.png' \(line 1\).*of 'dog', 'fox'"
    ):
        listed(LINES, labels=True, classes=['dog', 'fox'])
    with pytest.raises(ValueError, match=r"'3' of 'x/0\.png'"):
        listed('x/0.png 3\nx/1.png 0\n', labels=True, classes=classes)


@pytest.mark.parametrize(
    'content, message',
    [
        ('x/0.png,cat\nx/1.png,cat\n./x/0.png,dog\n', r"1 file.* several labels, e\.g\. './x/0\.png': 'cat' \(line 1\)"),
        ('x/0.png,\nx/1.png,cat\n', r"1 of 2 labels .* missing or unknown, e\.g\. '' of 'x/0\.png' \(line 1\)"),
        ('file,label\nx/0.png,cat\nx/1.png\n', r"e\.g\. None of 'x/1\.png' \(line 3\)"),
        ('file,label\nx/0.png,cat,0.9\nx/1.png,cat\n', r"e\.g\. None of 'x/0\.png' \(line 2\)"),
        ('x/0.png,0.5\nx/1.png,1\n', r"'0\.5' of 'x/0\.png' \(line 1\).*whole number"),
        ('x/0.png,nan\nx/1.png,1\n', "'nan' of 'x/0.png'"),
        ('[["x/0.png", [0, 1]]]', r"label of entry 1 of the list .* is '\[0, 1\]'; expected one class"),
        ('[{"file": "x/0.png", "label": true}]', "label of entry 1 of the list .* is 'True'"),
        ('x/0.png\nx/1.png\n', 'has no column of labels'),
        ('x/0.png,a,b\nx/1.png,c,d\n', 'has no column of labels'),
        ('', 'holds no name'),
        ('# path,label\n\n', 'holds no name'),
        ('path,label\n', 'holds no name'),
        ('0.png,cat\n', r"1 of the 1 names .* several files, e\.g\. '0\.png' \(line 1\): 'x/0\.png' and 'y/0\.png'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(listed, content, message):
    with pytest.raises(ValueError, match=message):
        listed(content, labels=True)


def test_missing_files_are_counted_and_five_are_named(listed, root):
    lines = 'x/0.png,cat\n' + ''.join(f'z/{k}.png,dog\n' for k in range(9))
    wanted = ', '.join(rf"'z/{k}\.png' \(line {k + 2}\)" for k in range(5))
    with pytest.raises(
        FileNotFoundError, match=rf"9 of the 10 names in .*list\.txt' are not in the source, e\.g\. {wanted};"
    ) as e:
        listed(lines, labels=True)
    assert f"looked for below '{root}'" in str(e.value)


def test_repeated_names_count_once(listed):
    with pytest.warns(UserWarning, match='1 of 3 names in .* are repeated'):
        assert pairs(listed('y/2.png,cat\nx/0.png,dog\ny/2.png,cat\n', labels=True)) == WANTED[:2]


def test_root_and_names_of_python(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('lists') / 'a.txt'
    elsewhere.write_text(f'{root}/x/1.png\nx/0.png\n')
    source = DATASETS.build(dict(type='ImageList', names=str(elsewhere), root=str(root)))
    assert list(source.file_names()) == ['x/1.png', 'x/0.png']
    assert pairs(ImageList([('y/0.png', 'b'), ('x/0.png', 'a')], str(root), labels=True)) == [
        ('y/0.png', 'b'),
        ('x/0.png', 'a'),
    ]
    with pytest.raises(ValueError, match='give root'):
        ImageList(['x/0.png'])
    with pytest.raises(FileNotFoundError, match=r'ImageList: there is no list .*none\.txt'):
        ImageList(str(root / 'none.txt'))
    with pytest.raises(FileNotFoundError, match='ImageFolder: no images in'):
        ImageList(str(elsewhere))


def test_a_long_list_is_judged_by_some_of_its_names(listed, monkeypatch):
    monkeypatch.setattr(names, 'LOOK', 2)
    table = 'id;path;label\n' + ''.join(f'{k};{path};{k % 2}\n' for k, path in enumerate(HERE * 5))
    with pytest.warns(UserWarning, match='24 of 30 names'):
        assert [path for path, _ in pairs(listed(table, labels=True))] == HERE
    with pytest.raises(FileNotFoundError, match='not in the source'):
        listed(table.replace('/', '-'))


@pytest.fixture
def kept_list(listed, root, monkeypatch):
    """The source of a list whose result is kept, and how often it was looked up."""
    monkeypatch.setattr(scanned, 'INDEX_FROM', 2)
    for folder in (root / 'x', root / 'y', root):
        os.utime(folder, (1_600_000_000,) * 2)
    times, real = [], names._matched
    monkeypatch.setattr(names, '_matched', lambda *given: times.append(1) or real(*given))

    def read(content, **options):
        return listed(content, '../list.csv', root=str(root), labels=True, **options), len(times)

    return read


def test_a_second_start_does_not_look_up_again(kept_list):
    (first, once), (second, again) = kept_list(LINES), kept_list(LINES)
    assert (once, again) == (1, 1)
    assert pairs(first) == pairs(second) == WANTED
    other, times = kept_list(LINES.replace('dog', 'fox'))
    assert (times, other.classes) == (2, ['cat', 'fox'])
    assert kept_list(LINES, classes=['dog', 'cat'])[1] == 3


BAD = dict(
    file_6=dict(rows=np.array([0, 1, 6])), file_below=dict(rows=np.array([0, -1, 1])), class_2=dict(labels=np.arange(3)),
    more=dict(rows=np.arange(4)), ends=dict(class_ends=np.array([0, 9])),
)  # fmt: skip


@pytest.mark.parametrize('arrays', [{}, *BAD.values()], ids=['none', *BAD])
def test_a_kept_list_is_not_trusted(kept_list, root, arrays, monkeypatch):
    given = []
    monkeypatch.setattr(image_list, 'kept', lambda *args: given.append(args) or kept(*args))
    first, _ = kept_list(LINES)
    places, about, _, _ = given[0]
    found = {**kept(*given[0]), **arrays} if arrays else {}
    places[0].unlink()
    kept(places[:1], about, lambda: found)
    with pytest.warns(UserWarning, match='it is made again'):
        second, times = kept_list(LINES)
    assert (times, pairs(second)) == (2, pairs(first))


def test_classes_from_a_text_file(listed, root):
    (root / 'classes.txt').write_text('two\none\n')
    source = listed('x/0.png,one\nx/1.png,two\n', labels=True, classes=str(root / 'classes.txt'))
    assert (source.classes, source.labels.tolist()) == (['two', 'one'], [1, 0])


def test_a_list_that_is_not_there_is_missed_before_files_are_listed(root, monkeypatch):
    monkeypatch.setattr(image_list, 'ImageFolder', None)
    with pytest.raises(FileNotFoundError, match='ImageList: there is no list .*gone.csv'):
        ImageList(str(root / 'gone.csv'))
