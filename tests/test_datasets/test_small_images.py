import hashlib
import pickle

import numpy as np
import pytest
import torchvision.datasets as published

from mmkernel.datasets import CIFAR10, CIFAR100, STL10, Digits


@pytest.fixture
def stl10(tmp_path):
    """Three images per split, written column by column as the published files are."""
    folder = tmp_path / 'stl10_binary'
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = {}
    for split in ('unlabeled', 'train', 'test'):
        images[split] = rng.integers(0, 256, (3, 96, 96, 3), np.uint8)
        images[split].transpose(0, 3, 2, 1).tofile(folder / f'{split}_X.bin')
        if split != 'unlabeled':
            np.array([10, 1, 2], np.uint8).tofile(folder / f'{split}_y.bin')
    (folder / 'class_names.txt').write_text('airplane\nbird\n')
    return tmp_path, images


def test_stl10(stl10):
    root, images = stl10
    for split in images:
        source = STL10(str(root), split)
        assert all(np.array_equal(source.image(i), images[split][i]) for i in range(3))
        assert source.labels.tolist() == ([-1] * 3 if split == 'unlabeled' else [9, 0, 1])
    assert source.classes == ['airplane', 'bird']
    assert len(STL10(str(root / 'stl10_binary'))) == 3
    copy = pickle.dumps(source)
    assert len(copy) < 27648
    assert np.array_equal(pickle.loads(copy).image(1), images['test'][1])


def test_stl10_errors(stl10, tmp_path):
    root, _ = stl10
    with pytest.raises(FileNotFoundError, match='stl10_binary/unlabeled_X.bin'):
        STL10(str(tmp_path / 'no'))
    with pytest.raises(ValueError, match="got 'val'"):
        STL10(str(root), 'val')
    file = root / 'stl10_binary' / 'unlabeled_X.bin'
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FileNotFoundError, match='27648-byte records, found 82943 bytes'):
        STL10(str(root))
    np.array([1], np.uint8).tofile(root / 'stl10_binary' / 'train_y.bin')
    with pytest.raises(ValueError, match='3 images but 1 labels'):
        STL10(str(root), 'train')


def records(count, label_bytes, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, (count, label_bytes)).astype(np.uint8)
    return images, labels, np.concatenate([labels, images.transpose(0, 3, 1, 2).reshape(count, -1)], axis=1)


@pytest.mark.parametrize('kind, label_bytes', [(CIFAR10, 1), (CIFAR100, 2)])
def test_cifar_binary_version(tmp_path, kind, label_bytes):
    folder = tmp_path / kind.binary_folder
    folder.mkdir()
    parts = [records(2, label_bytes, k) for k in range(len(kind.binary_files['train']))]
    for name, (_, _, data) in zip(kind.binary_files['train'], parts, strict=True):
        data.tofile(folder / name)
    (folder / kind.class_file).write_text('a\nb\n\n')
    source = kind(str(tmp_path))
    assert np.array_equal(
        np.stack([source.image(i) for i in range(len(source))]), np.concatenate([p[0] for p in parts])
    )
    assert source.labels.tolist() == np.concatenate([p[1][:, -1] for p in parts]).tolist()
    assert source.classes == ['a', 'b']
    assert len(pickle.dumps(source)) < 3072
    with pytest.raises(FileNotFoundError, match='no such file'):
        kind(str(tmp_path), 'test')


def write_python_version(folder, monkeypatch):
    """The published layout with two images a file; the checksums that torchvision demands are set to theirs."""
    folder.mkdir()

    def save(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    parts = [records(2, 1, k) for k in range(6)]
    contents = [dict(data=p[2][:, 1:], labels=p[1][:, 0].tolist()) for p in parts]
    lists = [save(f'data_batch_{k + 1}' if k < 5 else 'test_batch', c) for k, c in enumerate(contents)]
    meta = save('batches.meta', dict(label_names=['a', 'b']))
    monkeypatch.setattr(published.CIFAR10, 'train_list', lists[:5])
    monkeypatch.setattr(published.CIFAR10, 'test_list', lists[5:])
    monkeypatch.setattr(published.CIFAR10, 'meta', dict(filename='batches.meta', key='label_names', md5=meta[1]))
    return parts


def test_cifar_python_version(tmp_path, monkeypatch):
    folder = tmp_path / 'cifar-10-batches-py'
    parts = write_python_version(folder, monkeypatch)
    source = CIFAR10(str(tmp_path), 'test')
    assert np.array_equal(source.image(1), parts[5][0][1])
    assert source.labels.tolist() == parts[5][1][:, 0].tolist()
    assert len(CIFAR10(str(tmp_path))) == 10
    (folder / 'data_batch_2').write_bytes(pickle.dumps('changed'))
    with pytest.raises(FileNotFoundError, match=r'checksum is not the published one. Unpack cifar-10-python\.tar\.gz'):
        CIFAR10(str(tmp_path))


def test_cifar_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='has neither cifar-100-python/ or cifar-100-binary/.*https'):
        CIFAR100(str(tmp_path))
    with pytest.raises(FileNotFoundError, match='does not exist'):
        CIFAR10(str(tmp_path / 'no'))


def test_expected_lengths():
    assert STL10.expected_length(split='train', root='x') == 5000
    assert CIFAR100.expected_length(root='x') == 50000


def test_split_is_fixed_stratified_and_disjoint():
    train, test = Digits('train'), Digits('test')
    assert (len(train), len(test)) == (1437, 360) == (Digits.expected_length(), Digits.expected_length(split='test'))
    assert not set(train.members) & set(test.members)
    assert np.bincount(test.labels).min() >= 34
    assert hashlib.md5(test.members.astype('<i8').tobytes()).hexdigest() == '0bd339e2197b5d4b8fe356294424736f'


def test_digits():
    source = Digits('test', size=16)
    assert source.image(0).shape == (16, 16, 1)
    assert source.image(0).dtype == np.uint8
    assert source.classes == [str(k) for k in range(10)]
    assert source.image(3).max() > 200
    native = Digits('test', size=8)
    assert set(np.unique(native.images)) <= {round(k * 255 / 16) for k in range(17)}
    assert 'test 5' in native.name(5)
