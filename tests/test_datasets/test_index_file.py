"""A file of arrays: whole or refused."""

import os

import numpy as np
import pytest

from mmkernel.datasets.index_file import read_index, write_index

ARRAYS = dict(text=np.arange(7, dtype=np.uint8), none=np.zeros(0, np.int32), numbers=np.arange(-2, 3))


@pytest.fixture
def file(tmp_path):
    write_index(tmp_path / 'x.index', dict(words=['ü', '\udcff']), ARRAYS)
    return tmp_path / 'x.index'


def test_what_was_written_is_read(file):
    about, arrays, crc = read_index(file)
    assert about == dict(words=['ü', '\udcff'])
    assert arrays.keys() == ARRAYS.keys()
    for key, value in ARRAYS.items():
        assert arrays[key].dtype == value.dtype
        assert (arrays[key] == value).all()
        assert not arrays[key].flags.writeable
    assert read_index(file, crc)[2] == crc
    assert [path.name for path in file.parent.iterdir()] == ['x.index']  # nothing temporary is left
    with pytest.raises(ValueError, match='was written anew'):
        read_index(file, crc + 1)


def test_no_byte_can_change_unnoticed(file):
    """Every byte but the padding; a change of the text about the arrays is for the reader of that text to judge."""
    data = bytearray(file.read_bytes())
    told = read_index(file)[0]
    for k in range(len(data)):
        file.write_bytes(data[:k] + bytes([data[k] ^ 255]) + data[k + 1 :])
        try:
            about, arrays, _ = read_index(file)
        except ValueError:
            continue
        assert data[k] == 0 or about != told
        assert all((arrays[key] == value).all() for key, value in ARRAYS.items())


@pytest.mark.parametrize('length', [0, 5, 16, 40, -1])
def test_cut_short(file, length):
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match='is not an index|damaged header|cut short|does not fit'):
        read_index(file)


@pytest.mark.parametrize(
    'content',
    [
        b'hello', b'mmkernel' + b'\xff' * 8, b'mmkernel' + (2).to_bytes(8, 'little') + b'[]',
        b'mmkernel' + (4).to_bytes(8, 'little') + b'null', b'\x80\x04\x95' + bytes(100), b'mmkernel' + bytes(8),
    ],
)  # fmt: skip
def test_other_files(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError, match='is not an index|damaged header'):
        read_index(file)


def test_numbers_of_a_header_are_not_trusted(file):
    for sizes in (dict(a=['<i8', 1 << 60]), dict(a=['<i8', -1]), dict(a=['|O', 1]), dict(a=['<f8', 0])):
        header = str(dict(about={}, arrays=sizes, crc32=0)).replace("'", '"').encode()
        file.write_bytes(b'mmkernel' + len(header).to_bytes(8, 'little') + header)
        with pytest.raises(ValueError, match='cut short|does not fit'):
            read_index(file)


def test_a_failed_write_leaves_what_was_there(file, monkeypatch):
    def full(_):
        raise OSError(28, 'No space left on device')

    before = file.read_bytes()
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space'):
        write_index(file, {}, ARRAYS)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ['x.index']
    with pytest.raises(FileNotFoundError):
        read_index(file.parent / 'y.index')
