import io
import json
import multiprocessing
import os
import pickle
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

from mmkernel.datasets import CorruptImageError, Subset, TarShards
from mmkernel.datasets.training import as_source


def encoded(value, kind='PNG'):
    file = io.BytesIO()
    Image.new('RGB', (6, 4), (value % 256, 0, 0)).save(file, kind)
    return file.getvalue()


def shard(path, files):
    """A tar of {name: text or bytes}, or of pairs of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w') as tar:
        for name, data in files.items() if isinstance(files, dict) else files:
            data = data if isinstance(data, bytes) else data.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def shards(folder, labels=(2, 0, 1, 2, 0, 1), each=2):
    for k in range(0, len(labels), each):
        files = {}
        for i, label in list(enumerate(labels))[k : k + each]:
            files[f'a/{i:04d}.png'] = encoded(i)
            if label is not None:
                files[f'a/{i:04d}.cls'] = str(label)
        shard(folder / f'train-{k // each:03d}.tar', files)
    return folder


def reds(source):
    return [int(source.image(i)[0, 0, 0]) for i in range(len(source))]


def index_of(folder):
    return next(folder.glob('.mmkernel-*.index'))


def test_records_in_any_order(tmp_path):
    source = TarShards(str(shards(tmp_path)))
    assert source.labels.tolist() == [2, 0, 1, 2, 0, 1]
    assert source.classes == []
    assert reds(source) == list(range(6))
    assert [int(source.image(i)[0, 0, 0]) for i in (5, 0, 3, -1)] == [5, 0, 3, 5]
    assert source.image(0).shape == (4, 6, 3)
    assert source.name(3) == f'a/0003.png in {tmp_path}/train-001.tar'
    assert list(source.file_names())[:2] == ['a/0000.png', 'a/0001.png']
    assert source.image_files() == [f'{tmp_path}/train-00{k}.tar' for k in range(3)]
    assert TarShards(str(tmp_path), mode='L').image(1).shape == (4, 6, 1)


@pytest.mark.parametrize(
    'pattern',
    [
        '{}',
        '{}/*.tar',
        '{}/train-{{000..002}}.tar',
        '{}/train-00{{0,1,2}}.tar',
        '{0}/train-000.tar::{0}/train-00[12].tar',
    ],
)
def test_every_way_to_name_shards(tmp_path, pattern):
    shards(tmp_path)
    assert reds(TarShards(pattern.format(tmp_path))) == list(range(6))
    assert reds(TarShards([pattern.format(tmp_path)])) == list(range(6))


def test_files_of_a_record_need_not_follow_each_other(tmp_path):
    names = ['./y.cls', '.hidden.png', '__meta__/x.png', './x.PNG', 'readme', './y.png', './x.cls', 'd/._x.png']
    shard(tmp_path / 'x.tar', {n: encoded(len(n)) if n.lower().endswith('png') else str(len(n)) for n in names})
    source = TarShards(str(tmp_path / 'x.tar'))
    assert list(source.file_names()) == ['x.PNG', 'y.png']
    assert source.labels.tolist() == [7, 7]


@pytest.mark.parametrize(
    'labels, classes, numbers, names',
    [
        ((1, None, 0), None, [1, -1, 0], []),
        ((1, '', 0), ['a', 'b'], [1, -1, 0], ['a', 'b']),
        (('dog', None, 'cat'), None, [1, -1, 0], ['cat', 'dog']),
        (('dog', 'dog\n', 'cat'), ['dog', 'fox', 'cat'], [0, 0, 2], ['dog', 'fox', 'cat']),
        (('7', '3.0', '-1'), None, [7, 3, -1], []),
        (('7', '3', '3'), ['3', '7'], [1, 0, 0], ['3', '7']),
        (('7', 'a', '3'), None, [1, 2, 0], ['3', '7', 'a']),
        ((None, None), None, [-1, -1], []),
    ],
)
def test_labels_are_numbers_or_names(tmp_path, labels, classes, numbers, names):
    source = as_source(TarShards(str(shards(tmp_path, labels)), classes=classes))
    assert source.labels.tolist() == numbers
    assert source.classes == names


def test_class_names_from_a_file(tmp_path):
    (tmp_path / 'names.txt').write_bytes(b'\xef\xbb\xbfcat\r\ngrey wolf\r\n\r\n')
    source = TarShards(str(shards(tmp_path / 's', (1, 0))), classes=str(tmp_path / 'names.txt'))
    assert source.classes == ['cat', 'grey wolf']
    with pytest.raises(FileNotFoundError, match=r"no list of classes 'absent\.txt'"):
        TarShards(str(tmp_path / 's'), classes='absent.txt')


def test_labels_in_json_and_in_folders(tmp_path):
    records = [dict(label=3, word='cat'), dict(label=1, word='dog'), dict(word=None)]
    files = {}
    for k, record in enumerate(records):
        files |= {f'{"ab"[k % 2]}/{k}.jpg': encoded(k, 'JPEG'), f'{"ab"[k % 2]}/{k}.json': json.dumps(record)}
    path = shard(tmp_path / 'x.tar', files)
    assert TarShards(path, label='json:label').labels.tolist() == [3, 1, -1]
    assert TarShards(path, label='json:word').classes == ['cat', 'dog']
    assert TarShards(path, label='folder').labels.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"no record has a label='json:class'.*keys word \(3\), label \(2\)"):
        TarShards(path, label='json:class')
    with pytest.raises(ValueError, match="write label='json:KEY'"):
        TarShards(path, label='json')
    with pytest.raises(ValueError, match=r"no record has a label='class'; there is: jpg \(3\), json \(3\)"):
        TarShards(path, label='class')


@pytest.mark.parametrize(
    'name, text, said',
    [
        ('0.cls', '0.5', r'0\.png in .* \(record 0\): 0\.5; expected a whole number'),
        ('0.cls', '-7', r'-7; expected a whole number from -1 on'),
        ('0.cls', '1\n0', r"'0\.cls' in '.*x\.tar' holds no label: it has several lines"),
        ('0.cls', b'\xff\x00', r"'0\.cls' in '.*x\.tar' holds no label: .*utf-8"),
        ('0.json', '{"label": [0, 1]}', r"'0\.json' .* it is \[0, 1\].* a source of your own"),
        ('0.json', '{"label": true}', r"'0\.json' .* it is true"),
        ('0.json', '{"label": ', r"'0\.json' .* holds no label: Expecting value"),
        ('0.json', '[1]', 'it is not an object with keys, but'),
    ],
)
def test_labels_of_other_kinds_are_refused_with_the_record(tmp_path, name, text, said):
    path = shard(tmp_path / 'x.tar', {'0.png': encoded(0), name: text})
    with pytest.raises(ValueError, match=said):
        TarShards(path, label='json:label' if name.endswith('json') else 'cls')


def test_a_name_that_is_no_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a/0001\.png in .*'wolf'; expected one of the 2 classes \(cat, dog\)"):
        TarShards(str(shards(tmp_path, ('cat', 'wolf'))), classes=['cat', 'dog'])
    with pytest.raises(ValueError, match=r'a/0001\.png in .* 2; expected -1 to 1'):
        as_source(TarShards(str(shards(tmp_path / 'n', (1, 2))), classes=['cat', 'dog']))


def test_records_with_several_images(tmp_path):
    path = shard(
        tmp_path / 'x.tar',
        {'0.left.png': encoded(1), '0.right.png': encoded(2), '0.jpg': encoded(3), '0.png': encoded(4)},
    )
    with pytest.raises(ValueError, match=r"record '0' has two images, 'jpg' and 'png'. Choose one: image='jpg'"):
        TarShards(path)
    assert [reds(TarShards(path, image=image)) for image in ('jpg', '.png', 'left.png')] == [[3], [4], [1]]
    with pytest.raises(FileNotFoundError, match=r'no image in 1 shard.* Looked for webp; there is: left\.png \(1\)'):
        TarShards(path, image='webp')


def test_records_without_image_are_counted(tmp_path):
    path = shard(tmp_path / 'x.tar', {'0.png': encoded(0), '1.cls': '0', '2.txt': 'x'})
    with pytest.warns(UserWarning, match=r"2 record\(s\) have no image, e\.g\. '1' in '.*x\.tar'"):
        assert len(TarShards(path)) == 1


def test_a_key_that_comes_twice_is_refused_by_name(tmp_path):
    path = shard(tmp_path / 'x.tar', [('a/7.png', encoded(0)), ('a/8.png', encoded(0)), ('a/7.png', encoded(1))])
    with pytest.raises(ValueError, match=r"x\.tar' holds 'a/7\.png' twice"):
        TarShards(path)


def test_one_key_in_two_shards_is_two_images_which_a_list_must_not_name(tmp_path):
    for k in range(2):
        shard(tmp_path / f'{k}.tar', {'0.png': encoded(k)})
    source = TarShards(str(tmp_path))
    assert reds(source) == [0, 1]
    with pytest.raises(ValueError, match='names of several files'):
        Subset(source, names=['0.png'])
    source = TarShards(str(shards(tmp_path / 's')))
    assert reds(Subset(source, names=['0003', 'a/0001.png'])) == [1, 3]


def test_the_index_is_kept_and_follows_the_shards(tmp_path, monkeypatch):
    source = TarShards(str(shards(tmp_path)))
    monkeypatch.setattr(TarShards, '_index', lambda self: pytest.fail('walked again'))
    assert reds(TarShards(str(tmp_path))) == reds(source)
    monkeypatch.undo()
    shard(tmp_path / 'train-001.tar', {'b.png': encoded(9), 'b.cls': '1'})
    assert reds(TarShards(str(tmp_path))) == [0, 1, 9, 4, 5]
    with pytest.raises(OSError, match=r"train-001\.tar' has changed since the run began"):
        source.image(2)
    assert len(list(tmp_path.glob('.mmkernel-*.index'))) == 1
    TarShards(f'{tmp_path}/train-000.tar')
    assert len(list(tmp_path.glob('.mmkernel-*.index'))) == 2  # that of the whole is still there


def test_a_damaged_index_is_made_again(tmp_path):
    expected = reds(TarShards(str(shards(tmp_path))))
    data = index_of(tmp_path).read_bytes()
    for wrong in (b'', data[:-100], data[:-65] + b'\xff' + data[-64:], b'x' * len(data)):
        index_of(tmp_path).write_bytes(wrong)
        with pytest.warns(UserWarning, match='is damaged'):
            assert reds(TarShards(str(tmp_path))) == expected
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        TarShards(str(tmp_path))


def test_the_cache_folder_where_shards_cannot_be_written_beside(tmp_path, monkeypatch):
    shards(tmp_path / 's')
    monkeypatch.setenv('MMKERNEL_HOME', str(tmp_path / 'home'))
    monkeypatch.setattr('mmkernel.datasets.kept_arrays.os.access', lambda folder, _: 'home' in str(folder))
    TarShards(str(tmp_path / 's'))
    assert not list((tmp_path / 's').glob('.*'))
    assert len(list((tmp_path / 'home/indexes').glob('*.index'))) == 1


def test_missing_shards_are_counted_and_named(tmp_path):
    shards(tmp_path)
    (tmp_path / 'train-001.tar').unlink()
    with pytest.raises(
        FileNotFoundError, match=r"8 of 10 files are missing: '.*train-001\.tar', ('.*tar', ){3}'.*006\.tar', \.\.\."
    ):
        TarShards(f'{tmp_path}/train-{{000..009}}.tar')
    with pytest.raises(FileNotFoundError, match=r"1 of 1 files are missing: 'x\.tar' \(working directory"):
        TarShards('x.tar')
    with pytest.raises(FileNotFoundError, match=r"no file is named like '.*/val-\*\.tar': it holds .*train-000\.tar"):
        TarShards(f'{tmp_path}/val-*.tar')
    with pytest.raises(FileNotFoundError, match="there is no folder 'nowhere'"):
        TarShards('nowhere/*.tar')
    with pytest.raises(FileNotFoundError, match='list of files is empty'):
        TarShards([])
    with pytest.raises(ValueError, match=r'range \{3\.\.1\} is empty'):
        TarShards('x-{3..1}.tar')
    with pytest.raises(ValueError, match=r"train-000\.tar' comes twice"):
        TarShards([str(tmp_path), f'{tmp_path}/../{tmp_path.name}/train-000.tar'])
    with pytest.raises(ValueError, match='is not a file of this machine.*mount'):
        TarShards('https://host/{00..11}.tar')


def test_compressed_shards_are_refused_with_the_way_out(tmp_path):
    with tarfile.open(tmp_path / 'x.tar.gz', 'w:gz') as tar:
        tar.addfile(tarfile.TarInfo('0.png'))
    with pytest.raises(ValueError, match='compressed with gzip.*gunzip'):
        TarShards(f'{tmp_path}/x.tar.gz')
    with pytest.raises(FileNotFoundError, match=r'no \*\.tar in the folder .*gunzip \*\.gz'):
        TarShards(str(tmp_path))


def test_a_shard_cut_short_or_of_another_kind_is_named(tmp_path):
    shards(tmp_path)
    path = tmp_path / 'train-001.tar'
    data = path.read_bytes()
    path.write_bytes(data[:560])
    with pytest.raises(ValueError, match=r"train-001\.tar' is cut short inside 'a/0002\.png', file 1 in it"):
        TarShards(str(tmp_path))
    path.write_bytes(b'text' * 500)
    with pytest.raises(ValueError, match=r"train-001\.tar' is not a tar file"):
        TarShards(str(tmp_path))
    assert not list(tmp_path.glob('.mmkernel-*.index'))


def test_a_damaged_image_is_named_or_replaced(tmp_path):
    path = shard(tmp_path / 'x.tar', {'0.png': encoded(0)[:40], '1.png': encoded(1), '2.png': b''})
    with pytest.raises(CorruptImageError, match=r'0\.png in .*x\.tar'):
        TarShards(path).image(0)
    source = TarShards(path, on_corrupt='skip')
    with pytest.warns(UserWarning, match=r'Using 1\.png in'):
        assert reds(source) == [1, 1, 1]


def read_in_process(source, rows, found):
    found.put([int(source.image(i)[0, 0, 0]) for i in rows])


@pytest.mark.parametrize('start', ['fork', 'spawn'])
def test_processes_read_the_same_files_at_once(tmp_path, start):
    source = TarShards(str(shards(tmp_path, [None] * 40, each=5)))
    assert reds(source) == list(range(40))  # the files are open when the processes start
    assert len(pickle.dumps(source)) < 3000  # the index does not travel
    context = multiprocessing.get_context(start)
    found = context.Queue()
    processes = [
        context.Process(target=read_in_process, args=(source, list(range(39, -1, -1)) * 5, found)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    assert [found.get(timeout=60) for _ in processes] == [list(range(39, -1, -1)) * 5] * 2
    for process in processes:
        process.join()


def test_more_shards_than_files_that_are_kept_open(tmp_path):
    source = TarShards(str(shards(tmp_path, [0] * 300, each=1)))
    before = len(os.listdir('/proc/self/fd'))
    order = np.random.default_rng(0).permutation(300).tolist()
    assert [int(source.image(i)[0, 0, 0]) for i in order] == [i % 256 for i in order]
    assert len(os.listdir('/proc/self/fd')) <= before + 128


@pytest.mark.parametrize('name', ['../cat/a.png', '/cat/a.png', 'cat/../dog/a.png'])
def test_a_path_that_leads_out_is_in_no_class_folder(tmp_path, name):
    path = shard(tmp_path / 'a.tar', {'cat/0.png': encoded(0), name: encoded(1)})
    with pytest.raises(ValueError, match='a.tar.* begins with no class folder'):
        TarShards(path, label='folder')
    assert len(TarShards(path)) == 2  # nothing is written anywhere: it is a name like others


def test_a_large_file_is_no_label(tmp_path):
    path = shard(tmp_path / 'a.tar', {'0.png': encoded(0), '0.cls': b' ' * (1 << 25)})
    with pytest.raises(ValueError, match="'0.cls' in .* has 33554432 bytes, too many for a label"):
        TarShards(path)
