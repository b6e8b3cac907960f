"""Lists of file names as people write them: each name found, or an error that helps."""

import json
import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

from mmkernel.datasets import ImageFolder, NpzPack, Subset

HERE = (
    'a/0.png', 'a/1.png', 'b/0.png', 'b/2.jpg', 'b/2.png', 'b/my photo, 3.png', 'c/img.v2.png', 'c/ünï.png', 'only.png', '7.png',
)  # fmt: skip
WANTED = ['a/1.png', 'b/2.jpg']


@pytest.fixture
def root(tmp_path):
    for path in HERE:
        (tmp_path / 'data' / 'x' / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (2, 2)).save(tmp_path / 'data' / 'x' / path)
    return tmp_path / 'data' / 'x'


@pytest.fixture
def named(root):
    """The files that a list, text or bytes, names; the source's order."""

    def read(content, file='list.txt', source=None, **options):
        path = root.parent / file
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        part = Subset(source or ImageFolder(str(root)), names=str(path), **options)
        return [part.name(i).removeprefix(f'{root}/') for i in range(len(part))]

    return read


LINES = 'a/1.png\nb/2.jpg\n'
FORMATS = {
    'plain': LINES,
    'no last line end': LINES.rstrip(),
    'Windows': 'a\\1.png\r\nb\\2.jpg\r\n',
    'old Mac': 'a/1.png\rb/2.jpg\r',
    'byte order mark': b'\xef\xbb\xbf' + LINES.encode(),
    'UTF-16': LINES.encode('utf-16'),
    'UTF-16 big': b'\xfe\xff' + LINES.encode('utf-16-be'),
    'UTF-16 without mark': LINES.encode('utf-16-le'),
    'UTF-16 big without mark': LINES.encode('utf-16-be'),
    'dot': './a/1.png\n./b/2.jpg\n',
    'dot backwards': '.\\a\\1.png\n.\\b\\2.jpg\n',
    'double slash': 'a//1.png\nb/./2.jpg\n',
    'up and down': 'b/../a/1.png\n../x/b/2.jpg\n',
    'blank lines': '\n\na/1.png\n  \n\t\nb/2.jpg\n\n',
    'spaces around': '  a/1.png  \n\tb/2.jpg\t\n',
    'comments': '# the first\na/1.png\n  # and\nb/2.jpg\n',
    'quoted': '"a/1.png"\n\'b/2.jpg\'\n',
    'below the folder': 'x/a/1.png\ndata/x/b/2.jpg\n',
    'file name alone': '1.png\n2.jpg\n',
    'without extension': 'a/1\nb/2.jpg\n',
    'neither folder nor extension': '1\n2.jpg\n',
    'csv': 'filename,label\na/1.png,0\nb/2.jpg,1\n',
    'csv of one column': 'image\na/1.png\nb/2.jpg\n',
    'csv, name last': 'label,split,file_name\n0,train,a/1.png\n1,train,b/2.jpg\n',
    'csv, id and name': 'id,filename\n7,a/1.png\n0,b/2.jpg\n',
    'csv without header': 'a/1.png,0\nb/2.jpg,1\n',
    'csv without header, name last': '0,a/1.png\n1,b/2.jpg\n',
    'csv quoted': '"File Name","label"\n"a/1.png","0"\n"b/2.jpg","1"\n',
    'semicolons': 'path;label\na/1.png;0\nb/2.jpg;1\n',
    'tabs': 'a/1.png\t0\nb/2.jpg\t1\n',
    'name and number': 'a/1.png 0\nb/2.jpg 1\n',
    'json': json.dumps(WANTED),
    'json of records': json.dumps([dict(id=0, file_name=name) for name in WANTED]),
    'json of pairs': json.dumps([[name, 0] for name in WANTED]),
    'json, name to label': json.dumps(dict.fromkeys(WANTED, 0)),
    'json by class': json.dumps({'a': WANTED[:1], 'b': WANTED[1:]}),
    'json as COCO has it': json.dumps(dict(images=[dict(id=0, file_name=name) for name in WANTED], annotations=[])),
    'json lines': '\n'.join(json.dumps(dict(file=name)) for name in WANTED),
    'a header of other words': 'photo,species\na/1.png,0\nb/2.jpg,1\n',
    'a header of other words, name last': 'species,photo\n0,a/1.png\n1,b/2.jpg\n',
    'a number that is a name': '7 a/1.png\n7 b/2.jpg\n',
    'bars': 'a/1.png|0\nb/2.jpg|1\n',
    'json, marked': b'\xef\xbb\xbf' + json.dumps(WANTED, indent=2).encode(),
}


@pytest.mark.parametrize('content', FORMATS.values(), ids=FORMATS)
def test_everyday_formats(named, content):
    with warnings.catch_warnings(action='error'):
        assert named(content) == WANTED
        assert len(named(content, complement=True)) == len(HERE) - 2


def test_absolute_paths(named, root, tmp_path):
    assert named(f'{root}/a/1.png\n{root}/b/../b/2.jpg\n') == WANTED
    (tmp_path / 'link').symlink_to(root)
    linked = ImageFolder(str(tmp_path / 'link'))
    for place in (root, tmp_path / 'link'):
        assert len(named(f'{place}/a/1.png\n{place}/b/2.jpg\n', source=linked)) == 2


ODD = 'b/my photo, 3.png|my photo, 3|"b/my photo, 3.png"|c/img.v2|img.v2.png|only|only.png'.split('|')


@pytest.mark.parametrize('name', ODD)
def test_odd_names(named, name):
    assert len(named(name)) == 1


def test_odd_names_before_a_class_number(named):
    assert named('b/my photo, 3.png 7\na/1.png 2\n') == ['a/1.png', 'b/my photo, 3.png']


def test_paths_and_pairs_of_python(named, root):
    source = ImageFolder(str(root))
    for names in ([root / name for name in WANTED], [(name, 0) for name in WANTED]):
        assert len(Subset(source, names=names)) == 2


@pytest.mark.parametrize('form', ['NFC', 'NFD'])
def test_accents_in_either_form(named, form):
    assert named(unicodedata.normalize(form, 'c/ünï.png')) == ['c/ünï.png']


def test_names_that_come_again_count_once(named):
    with pytest.warns(UserWarning, match=r"2 of 4 names in .*list\.txt' are repeated"):
        assert named('a/1.png\nb/2.jpg\n./a/1.png\n1.png\n') == WANTED


NONE = {
    'empty': b'',
    'blank': b'\n \n\r\n', 'mark alone': b'\xef\xbb\xbf', 'comments': b'# a\n', 'header': b'filename\n', 'json': b'[]',
    'UTF-16': '\n'.encode('utf-16'),
}  # fmt: skip


@pytest.mark.parametrize('content', NONE.values(), ids=NONE)
def test_a_list_without_names(named, content):
    with pytest.raises(ValueError, match=r"the list '.*list\.txt' holds no name\. Expected one name per line"):
        named(content)


@pytest.mark.parametrize(
    'content, message',
    [
        (
            'a/1.png\n\nb/9.png\n',
            r"1 of the 2 names in .* are not in the source, e\.g\. 'b/9\.png' \(line 3\); the nearest is 'b/",
        ),
        ('a/1.PNG\n', r"'a/1\.PNG' \(line 1\); the nearest is 'a/1\.png'"),
        ('a/1.jpg\n', r"the nearest is 'a/1\.png'"),
        ('x/1.png\n', 'not in the source'),  # not a/1.png: the folder is named
        ('q/only.png\n', "the nearest is 'only.png'"),
        ('/elsewhere/a/1.png\n', "the nearest is 'a/1.png'"),
        ('C:\\data\\x\\a\\1.png\n', "the nearest is 'a/1.png'"),
        ('a\n', 'not in the source'),  # a folder is not a name
        ('*.png\n', 'not in the source'),
        ('a/1.png,0\nz/9.png,1\n', r"'z/9\.png' \(line 2\)"),  # and not the numbers as names
        ('only.png,7\nq.png,7\n', r"'q\.png' \(line 2\)"),
        ('label,filename\n7,a/1.png\n7,z/9.png\n', r"'z/9\.png' \(line 3\)"),
        ('[1, 2]', 'entry 1 of the list .* is .1., not a name'),
        ('[{"label": 3}]', 'entry 1 of the list'),
        ('["a/1.png", "z.png"]', r"'z\.png' \(entry 2\)"),
        ('["a/1.png",]', 'is not valid JSON'),
    ],
)
def test_what_is_not_there(named, content, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        named(content)


@pytest.mark.parametrize('name', ['0.png', '0', '2', 'b/2'])
def test_a_short_name_takes_no_more_than_one_file(named, name):
    with pytest.raises(
        ValueError,
        match=rf"1 of the 2 .* several files, e\.g\. '{name}' \(line 2\): '.*Write the path",
    ):
        named(f'only.png\n{name}\n')
    assert named('7.png\n') == ['7.png']  # at the root, whatever lies deeper


def test_names_of_a_pack_and_of_a_part(tmp_path):
    files = np.array(['n1/a.jpg', 'n1/b.jpg', 'n2/c.jpg'])
    np.savez(tmp_path / 'p.npz', train_jpeg=np.zeros(3, np.uint8), train_off=np.arange(4), train_file=files)
    (tmp_path / 'list.txt').write_text('c.jpg\nn1/b.jpg\n')
    pack = NpzPack(str(tmp_path / 'p.npz'))
    part = Subset(pack, names=str(tmp_path / 'list.txt'))
    assert part.rows.tolist() == [1, 2]
    (tmp_path / 'list.txt').write_text('c.jpg\n')
    assert Subset(part, names=str(tmp_path / 'list.txt')).rows.tolist() == [1]
    (tmp_path / 'list.txt').write_text('a.jpg\n')
    with pytest.raises(FileNotFoundError, match='not in the source'):
        Subset(part, names=str(tmp_path / 'list.txt'))


def test_names_in_the_config(root):
    source = dict(type='ImageFolder', root=str(root))
    assert Subset(source, names=['b/2.jpg', './a/1.png']).rows.tolist() == [3, 5]
    for names, message in (([], "the list 'names' holds no name"), ([3], "entry 1 of the list 'names' is '3'")):
        with pytest.raises(ValueError, match=message):
            Subset(source, names=names)
    with pytest.raises(FileNotFoundError, match=r"'z\.png' \(entry 2\)"):
        Subset(source, names=['a/1.png', 'z.png'])
