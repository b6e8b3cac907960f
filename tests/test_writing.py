"""Files whole or absent, temporary files with owners, places that are tried, disks that are full."""

import errno
import os
import resource
import subprocess
import sys
import threading

import pytest
import torch

from mmkernel import owner, writing
from mmkernel.writing import (
    NotWrittenError,
    drop_leftovers,
    replacing,
    room,
    set_aside,
    temporary_name,
    try_folder,
    writable,
)
from mmkernel.zoo.files import write_checkpoint


@pytest.fixture
def small_files():
    """No file may have more than 100 kB: what a full disk does to a write, on every system and for every user."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(tmp_path, small_files):
    path = tmp_path / 'epoch_1.pth'
    write_checkpoint(dict(w=torch.zeros(10)), path)
    before = path.read_bytes()
    with pytest.raises(NotWrittenError) as error:
        write_checkpoint(dict(w=[torch.zeros(1000, 1000)] * 2), path)
    said = str(error.value.strerror)
    assert f"File too large: '{path}' is not written, about 8.0 MB are needed, 0.1 MB can be written" in said
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ['epoch_1.pth']


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_named(tmp_path, number):
    def write():
        with replacing(tmp_path / 'a', 5_000_000) as half:
            half.write_text('as far as it goes')
            raise OSError(number, os.strerror(number))

    with pytest.raises(NotWrittenError, match=r'/a. is not written, about 5.0 MB are needed, .* MB can be written'):
        write()
    assert os.listdir(tmp_path) == []


def test_a_real_disk_that_is_full(tmp_path):
    disk = tmp_path / 'disk'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk], capture_output=True).returncode:
        pytest.skip('mounts are not allowed here; the other tests limit the size of files')
    try:
        write_checkpoint(dict(w=torch.zeros(10)), disk / 'a.pth')
        with pytest.raises(NotWrittenError, match='No space left .*about 8.0 MB are needed, 1.0 MB can be written'):
            write_checkpoint(dict(w=torch.zeros(2000, 1000)), disk / 'a.pth')
        assert os.listdir(disk) == ['a.pth']
        subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
        with pytest.raises(OSError, match='Read-only'):
            try_folder(disk)  # permission bits allow it: we may be root
        with pytest.raises(NotWrittenError, match=r'knn.json. cannot be written \(Read-only'):
            writable(disk / 'below/knn.json')
    finally:
        subprocess.run(['umount', disk], check=True)


def test_a_trial_leaves_nothing(tmp_path, monkeypatch):
    assert writable(tmp_path / 'a/b/knn.json') == tmp_path / 'a/b/knn.json'
    assert os.listdir(tmp_path / 'a/b') == []

    def refuse(folder):
        raise OSError(errno.EROFS, 'Read-only file system')

    monkeypatch.setattr(writing, 'probe', refuse)
    with pytest.raises(OSError, match='Read-only'):
        try_folder(tmp_path / 'c/d')
    assert os.listdir(tmp_path) == ['a']


def test_the_limit_of_a_process_counts_as_room(tmp_path, small_files):
    assert room(tmp_path) == 100_000


def test_temporary_names_are_of_one_process_and_one_write(tmp_path):
    names = [temporary_name(tmp_path / 'epoch_1.pth') for _ in range(3)]
    assert len(set(names)) == 3
    assert [writing.owner_of(name) for name in names] == [owner.tag()] * 3
    assert len(temporary_name(tmp_path / ('x' * 250)).name) < 255
    assert writing.owner_of(tmp_path / 'notes.tmp') is None
    code = 'from mmkernel import owner; print(owner.tag())'
    other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
    assert (owner.gone(owner.tag()), owner.gone(other), owner.gone('0' * 8 + 'p1s1'), owner.gone('notes')) == (
        False, True, None, None)  # fmt: skip


def test_two_threads_that_write_one_file_do_not_mix(tmp_path):
    both = threading.Barrier(2)

    def write(text):
        with replacing(tmp_path / 'a') as half:
            half.write_text(text)
            both.wait(30)

    threads = [threading.Thread(target=write, args=(word * 1000,)) for word in 'ab']
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / 'a').read_text() in ('a' * 1000, 'b' * 1000)
    assert os.listdir(tmp_path) == ['a']


def test_leftovers_of_the_dead_alone_are_deleted(tmp_path):
    living = temporary_name(tmp_path / 'features')
    dead = living.with_name(living.name.replace(owner.tag(), f'{owner.tag()}0'))
    (dead / 'below').mkdir(parents=True)
    living.mkdir()
    drop_leftovers(tmp_path, 'features')
    assert os.listdir(tmp_path) == [living.name]


def test_the_same_checkpoint_is_the_same_bytes(tmp_path):
    for name in ('a', 'b'):
        write_checkpoint(dict(w=torch.arange(5)), tmp_path / f'{name}.pth')
    assert (tmp_path / 'a.pth').read_bytes() == (tmp_path / 'b.pth').read_bytes()


def test_set_aside_replaces_nothing_though_another_is_faster(tmp_path, monkeypatch):
    (tmp_path / 'a').write_text('new')
    link = os.link

    def slow(source, target, **options):
        if target.name == 'a.old':
            target.write_text('of another process')
        link(source, target, **options)

    monkeypatch.setattr(os, 'link', slow)
    assert set_aside(tmp_path / 'a').name == 'a.old2'
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        'a.old': 'of another process', 'a.old2': 'new'}  # fmt: skip
