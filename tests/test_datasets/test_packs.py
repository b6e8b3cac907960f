import io
import pickle

import numpy as np
import pytest
from PIL import Image

from mmkernel.datasets import CorruptImageError, NpzPack


def arrays(count=5, labels=True):
    rng = np.random.default_rng(0)
    blobs = []
    for k in range(count):
        buffer = io.BytesIO()
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        (image.convert('L') if k == 1 else image).save(buffer, 'JPEG')
        blobs.append(buffer.getvalue())
    out = dict(
        train_jpeg=np.frombuffer(b''.join(blobs), np.uint8),
        train_off=np.cumsum([0] + [len(b) for b in blobs], dtype=np.int64),
        train_file=np.array([f'img_{k}.jpg' for k in range(count)]),
        classes=np.array(['cat', 'dog']),
    )
    if labels:
        out['train_label'] = np.arange(count) % 2
    return out, blobs


@pytest.fixture
def pack(tmp_path):
    def save(**changes):
        data, blobs = arrays()
        data.update(changes)
        np.savez_compressed(tmp_path / 'pack.npz', **{k: v for k, v in data.items() if v is not None})
        return str(tmp_path / 'pack.npz'), blobs

    return save


def test_records_decode_one_by_one(pack):
    path, blobs = pack()
    source = NpzPack(path)
    assert len(source) == 5
    assert source.labels.tolist() == [0, 1, 0, 1, 0]
    assert source.classes == ['cat', 'dog']
    for i, blob in enumerate(blobs):
        assert np.array_equal(source.image(i), np.asarray(Image.open(io.BytesIO(blob)).convert('RGB')))
    assert 'record 3 of' in source.name(3)
    assert 'img_3.jpg' in source.name(3)
    assert NpzPack(path, mode='L').image(1).shape == (8, 8, 1)


def test_a_pickled_copy_carries_no_images_and_opens_the_file_again(pack):
    path, _ = pack()
    source = NpzPack(path)
    data = pickle.dumps(source)
    assert len(data) < source.arrays[0].nbytes
    assert np.array_equal(pickle.loads(data).image(2), source.image(2))


def test_labels_and_names_are_optional(pack):
    path, _ = pack(train_label=None, train_file=None, classes=None)
    source = NpzPack(path)
    assert source.labels.tolist() == [-1] * 5
    assert source.classes == []
    assert source.name(0).endswith('[train]')


def test_corrupt_record_is_named_or_replaced(pack):
    data, _ = arrays()
    broken = data['train_jpeg'].copy()
    broken[data['train_off'][2] : data['train_off'][3]] = 7
    path, _ = pack(train_jpeg=broken)
    with pytest.raises(CorruptImageError, match=r'record 2 of .*img_2\.jpg'):
        NpzPack(path).image(2)
    source = NpzPack(path, on_corrupt='skip')
    with pytest.warns(UserWarning, match='record 3'):
        assert np.array_equal(source.image(2), source.image(3))


def test_errors_name_the_key(pack, tmp_path):
    path, _ = pack()
    with pytest.raises(ValueError, match='has no key test_jpeg; its splits: train'):
        NpzPack(path, split='test')
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz' does not exist"):
        NpzPack('nothing.npz')
    path, _ = pack(train_off=np.arange(6))
    with pytest.raises(ValueError, match='train_off must rise from 0'):
        NpzPack(path)
    path, _ = pack(train_off=np.array([0, 3, 2, 4, 5, 6], np.uint64))
    with pytest.raises(ValueError, match='train_off must rise from 0'):
        NpzPack(path)
    path, _ = pack(train_off=np.arange(6.0))
    with pytest.raises(ValueError, match=r'train_off float64 \(6,\); expected all bytes of the encoded files, uint8'):
        NpzPack(path)
    path, _ = pack(train_jpeg=np.zeros((5, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r'train_jpeg is uint8 \(5, 8, 8, 3\)'):
        NpzPack(path)
    path, _ = pack(train_label=np.zeros(3))
    with pytest.raises(ValueError, match='train_label has 3 entries for 5 images'):
        NpzPack(path)
    (tmp_path / 'half.npz').write_bytes(open(path, 'rb').read()[:200])
    with pytest.raises(ValueError, match=r'half\.npz.* is damaged'):
        NpzPack(str(tmp_path / 'half.npz'))


def test_deep_pixels_and_arrays_of_numpy_in_a_pack(tmp_path):
    grey = np.array([[0, 4095], [1000, 9000]], np.uint16)
    png, npy = io.BytesIO(), io.BytesIO()
    Image.fromarray(grey).save(png, 'PNG')
    np.save(npy, grey)
    blobs = [png.getvalue(), npy.getvalue()]
    offsets = np.cumsum([0] + [len(blob) for blob in blobs])
    np.savez(tmp_path / 'deep.npz', train_jpeg=np.frombuffer(b''.join(blobs), np.uint8), train_off=offsets)
    source = NpzPack(str(tmp_path / 'deep.npz'), mode='L', scale=4095)
    assert source.image(0).tolist() == source.image(1).tolist() == [[[0], [255]], [[62], [255]]]
    with pytest.raises(ValueError, match='scale='):
        NpzPack(str(tmp_path / 'deep.npz'), scale=(5, 5))


@pytest.mark.parametrize('key', ['classes', 'train_label', 'train_file', 'train_jpeg'])
def test_an_array_of_objects_is_refused_by_key(pack, key):
    path, _ = pack(**{key: np.array(['a', None], object)})
    with pytest.raises(ValueError, match=f"pack.npz': {key} cannot be read .*pickle"):
        NpzPack(path)
