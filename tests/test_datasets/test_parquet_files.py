import io
import json
import multiprocessing
import pickle
import sys
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmkernel.datasets import CorruptImageError, Parquet, Subset, TarShards
from mmkernel.datasets.training import as_source


def encoded(value, kind='PNG'):
    file = io.BytesIO()
    Image.new('RGB', (6, 4), (value % 256, 0, 0)).save(file, kind)
    return file.getvalue()


def table(values, labels=None, names=None, struct=True, kind=None):
    blobs = [encoded(value) for value in values]
    images = [dict(bytes=blob, path=f'p/{v}.png') for v, blob in zip(values, blobs, strict=True)] if struct else blobs
    columns = dict(image=pa.array(images, None if struct else pa.binary()))
    if labels is not None:
        columns['label'] = pa.array(labels, kind)
    features = dict(label=dict(names=names, _type='ClassLabel')) if names else {}
    metadata = {b'huggingface': json.dumps(dict(info=dict(features=features))).encode()}
    return pa.table(columns).replace_schema_metadata(metadata)


def write(folder, count=10, files=2, **given):
    """``files`` files of ``count`` rows each, in row groups of 4."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(files):
        values = range(k * count, (k + 1) * count)
        pq.write_table(
            table(values, [v % 3 for v in values], **given), folder / f'train-{k:05d}.parquet', row_group_size=4
        )
    return str(folder)


def reds(source, rows=None):
    return [int(source.image(i)[0, 0, 0]) for i in (range(len(source)) if rows is None else rows)]


@pytest.mark.parametrize('struct', [True, False])
@pytest.mark.parametrize('cache_mb', [0, 256])
def test_rows_in_any_order(tmp_path, struct, cache_mb):
    source = as_source(Parquet(write(tmp_path, struct=struct, names=['a', 'b', 'c']), cache_mb=cache_mb))
    assert source.labels.tolist() == [v % 3 for v in range(20)]
    assert source.classes == ['a', 'b', 'c']
    order = np.random.default_rng(0).permutation(20).tolist()
    assert reds(source, order) == order
    assert source.image(0).shape == (4, 6, 3)
    assert source.name(13) == f'row 3 of {tmp_path}/train-00001.parquet'
    assert source.image_files() == [f'{tmp_path}/train-0000{k}.parquet' for k in range(2)]
    assert len(source.arrays.kept) == (6 if cache_mb else 1)
    if struct:
        assert reds(Subset(source, names=['p/7.png', '12'])) == [7, 12]
    else:
        assert source.file_names() is None


@pytest.mark.parametrize(
    'labels, kind, classes, numbers, names',
    [
        ([1, None, 0], pa.int8(), None, [1, -1, 0], []),
        ([1, 0, 0], pa.int64(), ['x', 'y'], [1, 0, 0], ['x', 'y']),
        (['dog', None, 'cat'], pa.string(), None, [1, -1, 0], ['cat', 'dog']),
        (
            ['dog', 'dog', 'cat'],
            pa.dictionary(pa.int32(), pa.string()),
            ['dog', 'fox', 'cat'],
            [0, 0, 2],
            ['dog', 'fox', 'cat'],
        ),
        (['3', '1', '1'], pa.large_string(), None, [3, 1, 1], []),
        ([2.0, 0.0, 1.0], pa.float32(), None, [2, 0, 1], []),
    ],
)
def test_labels_are_numbers_or_names(tmp_path, labels, kind, classes, numbers, names):
    pq.write_table(table(range(3), labels, kind=kind), tmp_path / 'x.parquet')
    source = as_source(Parquet(str(tmp_path), classes=classes))
    assert source.labels.tolist() == numbers
    assert source.classes == names
    assert Parquet(str(tmp_path), label=None).labels.tolist() == [-1] * 3


@pytest.mark.parametrize(
    'labels, said',
    [
        ([0.5, 0.0, 1.0], r'row 0 of .*x\.parquet \(record 0\): 0\.5; expected a whole number'),
        ([True, False, True], 'expected a whole number.*truth values'),
        ([[0, 1], [1, 0], [0, 1]], "column 'label' holds list<.*one class per image"),
        ([-2, 0, 1], 'expected a whole number from -1 on'),
    ],
)
def test_labels_of_other_kinds_are_refused(tmp_path, labels, said):
    pq.write_table(table(range(3), labels), tmp_path / 'x.parquet')
    with pytest.raises(ValueError, match=said):
        Parquet(str(tmp_path))


def test_columns_that_are_not_there(tmp_path):
    pq.write_table(table(range(3), [0, 1, 2]), tmp_path / 'x.parquet')
    with pytest.raises(ValueError, match=r"no column 'img', but: image \(images\), label \(int64\). Give image="):
        Parquet(str(tmp_path), image='img')
    with pytest.raises(ValueError, match=r"no column 'fine_label', but: .*label=None for none"):
        Parquet(str(tmp_path), label='fine_label')
    with pytest.raises(ValueError, match=r"column 'label' holds int64; expected encoded images"):
        Parquet(str(tmp_path), image='label')


def test_files_that_are_none_or_of_several_kinds(tmp_path):
    write(tmp_path / 'a')
    data = (tmp_path / 'a/train-00000.parquet').read_bytes()
    (tmp_path / 'a/train-00000.parquet').write_bytes(data[:-100])
    with pytest.raises(ValueError, match=r"train-00000\.parquet' is cut short, damaged or no parquet file"):
        Parquet(str(tmp_path / 'a'))
    write(tmp_path / 'b')
    pq.write_table(table(range(3), ['x', 'y', 'z']), tmp_path / 'b/train-00001.parquet')
    with pytest.raises(ValueError, match=r"00000.parquet' has whole numbers, .*00001.parquet' has texts"):
        Parquet(str(tmp_path / 'b'))
    pq.write_table(table(range(3), [1, 1, 1]), tmp_path / 'b/test-00000.parquet')
    with pytest.raises(ValueError, match=r'several splits \(test: 1, train: 2\).*/test\*\.parquet'):
        Parquet(str(tmp_path / 'b'))
    with pytest.raises(FileNotFoundError, match=r'no \*\.parquet in the folder'):
        Parquet(str(tmp_path))
    pq.write_table(table([0], [0])[:0], tmp_path / 'none.parquet')
    with pytest.raises(FileNotFoundError, match=r'no rows in 1 file\(s\)'):
        Parquet(str(tmp_path / 'none.parquet'), label=None)


def test_damaged_and_absent_images(tmp_path):
    rows = table(range(3), [0, 1, 2]).to_pylist()
    rows[0]['image']['bytes'], rows[2]['image']['bytes'] = b'no image', None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / 'x.parquet')
    source = Parquet(str(tmp_path), on_corrupt='skip')
    with pytest.raises(CorruptImageError, match=r'row 0 of .*x\.parquet'):
        Parquet(str(tmp_path)).image(0)
    with pytest.warns(UserWarning, match='Using row 1 of'):
        assert reds(source, [0]) == [1]
    with pytest.raises(ValueError, match='row 2 of .* has no bytes, perhaps only a path'):
        source.image(2)


def test_large_row_groups_are_said(tmp_path, monkeypatch):
    folder = write(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        Parquet(folder, cache_mb=0)
    monkeypatch.setattr('mmkernel.datasets.parquet_files._SLOW', 100)
    with pytest.warns(UserWarning, match=r'row groups of 0 MB, which are read for each image.*to_shards'):
        Parquet(folder, cache_mb=0)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        Parquet(folder)  # the whole fits into the cache


def test_a_copy_in_shards_is_the_same_set(tmp_path):
    source = Parquet(write(tmp_path / 'p', names=['a', 'b', 'c']))
    source.to_shards(tmp_path / 's', per_shard=8)
    copy = TarShards(str(tmp_path / 's'), classes=str(tmp_path / 's/classes.txt'))
    assert len(copy.shards) == 3
    assert reds(copy) == reds(source)
    assert copy.labels.tolist() == source.labels.tolist()
    assert copy.classes == source.classes
    with pytest.raises(FileExistsError, match=r"holds '000000\.tar' already"):
        source.to_shards(tmp_path / 's')


def test_without_pyarrow_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    folder = write(tmp_path)
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ImportError, match=r"pip install 'mmkernel\[parquet\]'"):
        Parquet(folder)


def read_in_process(source, rows, found):
    found.put(reds(source, rows))


@pytest.mark.parametrize('start', ['fork', 'spawn'])
def test_processes_read_the_same_files_at_once(tmp_path, start):
    source = Parquet(write(tmp_path), cache_mb=0)
    assert reds(source) == list(range(20))
    assert len(pickle.dumps(source)) < 3000
    context = multiprocessing.get_context(start)
    found = context.Queue()
    order = np.random.default_rng(0).permutation(20).tolist()
    processes = [context.Process(target=read_in_process, args=(source, order, found)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [found.get(timeout=60) for _ in processes] == [order] * 2
    for process in processes:
        process.join()


NUMBERS = pa.array([0, None, 2])


@pytest.mark.parametrize(
    'label', [*map(NUMBERS.cast, ['uint8', 'uint64', 'int16', 'float']), NUMBERS.dictionary_encode()]
)
def test_numbers_of_any_type_with_missing_ones(tmp_path, label):
    pq.write_table(table(range(3)).append_column('label', label), tmp_path / 'a.parquet')
    assert Parquet(str(tmp_path)).labels.tolist() == [0, -1, 2]


def test_files_with_their_numbers_in_other_types(tmp_path):
    for k, kind in enumerate([pa.int64(), pa.int32(), pa.uint8()]):
        pq.write_table(table(range(3), [0, 1, 2], kind=kind), tmp_path / f'{k}.parquet')
    assert Parquet(str(tmp_path)).labels.tolist() == 3 * [0, 1, 2]


def test_classes_in_another_order_are_refused_with_both_files(tmp_path):
    for k, names in enumerate([['a', 'b'], ['b', 'a']]):
        pq.write_table(table(range(2), [0, 1], names), tmp_path / f'{k}.parquet')
    with pytest.raises(ValueError, match=r"0.parquet' has .*\['a', 'b'\]; .*1.parquet' has .*\['b', 'a'\]"):
        Parquet(str(tmp_path))


def test_an_empty_word_is_no_class(tmp_path):
    pq.write_table(table(range(3), ['a', '', 'b']), tmp_path / 'a.parquet')
    with pytest.raises(ValueError, match=r"row 1 of .*: ''; expected a word"):
        Parquet(str(tmp_path))


def test_a_row_without_an_image_is_named(tmp_path):
    pq.write_table(
        pa.table(dict(image=[dict(bytes=encoded(1), path='1.png'), None], label=[0, 1])), tmp_path / 'a.parquet'
    )
    source = Parquet(str(tmp_path))
    assert source.file_names() is None
    with pytest.raises(ValueError, match='row 1 of .* has no bytes'):
        source.image(1)


def test_a_damaged_row_group_is_named(tmp_path):
    path = tmp_path / 'a.parquet'
    pq.write_table(table(range(3), [0, 1, 2]), path)
    path.write_bytes(b'PAR1' + b'\xff' * 100 + path.read_bytes()[104:])
    with pytest.raises(ValueError, match=r"a.parquet' is damaged, row group 0 cannot be read"):
        Parquet(str(tmp_path)).image(0)
