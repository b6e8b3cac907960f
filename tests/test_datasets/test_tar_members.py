import io
import os
import tarfile

import pytest

from mmkernel.datasets.tar_members import members, reader

NAMES = {
    'short': 'a/0001.jpg',
    'prefix': '/'.join(['folder' * 5] * 6) + '/0001.jpg',  # over 100 characters: two fields of ustar
    'long': 'd' * 300 + '/' + 'f' * 120 + '.jpg',
    'letters': 'größe/ñ 日本.jpg',
}


def write(path, files, **options):
    with tarfile.open(path, 'w', **options) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def found(path):
    number = os.open(path, os.O_RDONLY)
    try:
        return [
            (m.name, os.pread(number, m.size, m.offset))
            for m in members(str(path), reader(number), os.fstat(number).st_size)
        ]
    finally:
        os.close(number)


KINDS = dict(ustar=tarfile.USTAR_FORMAT, gnu=tarfile.GNU_FORMAT, pax=tarfile.PAX_FORMAT)
CASES = [(kind, name) for kind in KINDS for name in NAMES if (kind, name) != ('ustar', 'long')]  # it has no room for it


@pytest.mark.parametrize('kind, name', CASES)
def test_names_of_any_length_in_every_format(tmp_path, kind, name):
    kind, name = KINDS[kind], NAMES[name]
    files = [('first.cls', b'7'), (name, b'x' * 5000), ('empty', b''), ('last.txt', b'y' * 512)]
    write(tmp_path / 'x.tar', files, format=kind)
    assert found(tmp_path / 'x.tar') == files


def test_what_is_no_file_is_left_out(tmp_path):
    with tarfile.open(tmp_path / 'x.tar', 'w', format=tarfile.PAX_FORMAT, pax_headers=dict(comment='all')) as tar:
        for name, kind in [
            ('d', tarfile.DIRTYPE),
            ('l', tarfile.SYMTYPE),
            ('h', tarfile.LNKTYPE),
            ('p', tarfile.FIFOTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, 'x' * 200 + 'ü'
            tar.addfile(info)
        info = tarfile.TarInfo('a.jpg')
        info.size, info.pax_headers = 3, dict(mtime='1.5', size='3')
        tar.addfile(info, io.BytesIO(b'abc'))
    assert found(tmp_path / 'x.tar') == [('a.jpg', b'abc')]


def test_sizes_from_eight_gibibytes_on(tmp_path):
    info = tarfile.TarInfo('big.jpg')
    info.size = 9 * 2**30
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        (tmp_path / 'x.tar').write_bytes(info.tobuf(kind))
        os.truncate(
            tmp_path / 'x.tar', (tmp_path / 'x.tar').stat().st_size + 9 * 2**30 + 1024
        )  # a hole, no bytes on the disk
        number = os.open(tmp_path / 'x.tar', os.O_RDONLY)
        (member,) = members('x.tar', reader(number), os.fstat(number).st_size)
        os.close(number)
        assert (member.name, member.size) == ('big.jpg', 9 * 2**30)


def test_a_tar_cut_short_anywhere_is_named_with_the_file(tmp_path):
    path = tmp_path / 'x.tar'
    write(path, [(f'{k}{"n" * 120}.jpg', b'x' * 700) for k in range(3)], format=tarfile.GNU_FORMAT)
    whole = path.read_bytes()
    size = 512 * 5  # long name, its text, header, two blocks
    for cut in range(128, 3 * size, 128):
        path.write_bytes(whole[:cut])
        done = (cut + 1024 - 700) // size  # zeros after a whole file may be missing
        place = rf'(after {done} file|file {done + 1} in it{"" if done else "|at its beginning"})'
        if cut % size:
            with pytest.raises(ValueError, match=rf"x\.tar' is cut short .*{place}"):
                found(path)
    for count in (1, 2, 3):
        path.write_bytes(whole[: count * size])
        with pytest.warns(UserWarning, match=rf'no end mark: .* {count} files of it are read'):
            assert len(found(path)) == count


def test_damage_is_told_from_another_kind_of_file(tmp_path):
    path = tmp_path / 'x.tar'
    write(path, [('a.jpg', b'x' * 700), ('b.jpg', b'y')])
    data = bytearray(path.read_bytes())
    data[512 * 3 + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"x\.tar' is damaged: no header at byte 1536, after 1 file\(s\), the last 'a\.jpg'"
    ):
        found(path)
    path.write_bytes(b'PK\x03\x04' + b'z' * 2000)
    with pytest.raises(ValueError, match=r"x\.tar' is not a tar file"):
        found(path)
    path.write_bytes(b'')
    with pytest.raises(ValueError, match='is empty'):
        found(path)


@pytest.mark.parametrize('kind, said', [('gz', 'gzip.*gunzip'), ('bz2', 'bzip2'), ('xz', 'xz.*unxz')])
def test_compressed_archives_are_refused_with_the_way_out(tmp_path, kind, said):
    with tarfile.open(tmp_path / 'x.tar', f'w:{kind}') as tar:
        tar.addfile(tarfile.TarInfo('a.jpg'))
    with pytest.raises(ValueError, match=f'compressed with {said}'):
        found(tmp_path / 'x.tar')


def test_archives_behind_the_end_mark_are_refused(tmp_path):
    write(tmp_path / 'x.tar', [('a.jpg', b'x')])
    path = tmp_path / 'x.tar'
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match='goes on behind its end mark.*--concatenate'):
        found(path)


def test_a_pax_header_of_nonsense_is_damage(tmp_path):
    for text in (b'0 a=b\n', b'x', b'99999 size=zz\n', b'-3 a=b\n'):
        info = tarfile.TarInfo('p')
        info.type, info.size = tarfile.XHDTYPE, len(text)
        (tmp_path / 'x.tar').write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + text.ljust(512, b'\0') + bytes(1024))
        with pytest.raises(ValueError, match='is damaged: no pax header'):
            found(tmp_path / 'x.tar')


def test_sparse_files_are_refused(tmp_path):
    info = tarfile.TarInfo('hole.jpg')
    info.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / 'x.tar').write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match=r"sparse file 'hole\.jpg'.*--sparse"):
        found(tmp_path / 'x.tar')


def header(kind, size):
    """A header whose field of the size is ``size``, with the checksum of it."""
    info = tarfile.TarInfo('a.jpg')
    info.type = kind
    data = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    data[124:136], data[148:156] = size, b' ' * 8
    data[148:156] = b'%06o\0 ' % sum(data)
    return bytes(data)


@pytest.mark.parametrize('kind', [b'0', b'g', b'x', b'L'])
def test_a_negative_size_does_not_lead_back(tmp_path, kind):
    (tmp_path / 'x.tar').write_bytes(header(kind, b'-0000001000\0') + b'\0' * 1024)
    with pytest.raises(ValueError, match='x.tar.* no header at byte 0.*is not an octal number'):
        found(tmp_path / 'x.tar')


@pytest.mark.parametrize('kind', [b'x', b'L'])
def test_a_name_of_gigabytes_is_not_read(tmp_path, kind):
    (tmp_path / 'x.tar').write_bytes(header(kind, b'%011o\0' % (8**11 - 512)))
    os.truncate(tmp_path / 'x.tar', 8**11 + 4096)  # of holes: it takes no room
    with pytest.raises(ValueError, match='x.tar.* a header of 8589934080 bytes'):
        found(tmp_path / 'x.tar')
