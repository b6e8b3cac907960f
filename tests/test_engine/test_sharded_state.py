"""Folders of shards beside a checkpoint: whole or not there, and named while the run still owns its folder."""

import errno

import pytest
import torch
import torch.distributed.checkpoint as dcp
from multiprocess import run_processes
from test_sharded_training import config, run

from mmkernel.engine import persistence, sharded_state, train
from mmkernel.engine.sharded_state import drop_loose_shards, naming_shards, shards_go
from mmkernel.owner import tag
from mmkernel.writing import NotWrittenError, owner_of


def full_disk(rank, world_size, folder):
    """The disk of process 1 is full at the second checkpoint, or process 0 fails after all shards are written."""
    places = dict(shards=(1, dcp.HuggingFaceStorageWriter, 'write_data'), file=(0, persistence, 'write_checkpoint'))
    for name, (who, owner, attribute) in places.items():
        whole = getattr(owner, attribute)

        def fails(*given, whole=whole, name=name):
            if (folder / name / 'epoch_1.pth').exists():
                raise OSError(errno.ENOSPC, 'No space left on device')
            return whole(*given)

        if rank == who:
            setattr(owner, attribute, fails)
        with pytest.raises(
            NotWrittenError, match=r"epoch_2.pth' cannot be written .*No space left.* last good .*epoch_1.pth"
        ):
            train(config(folder / name, world_size, shards=True))
        setattr(owner, attribute, whole)


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_of_the_shards_and_the_checkpoint_before(tmp_path):
    run_processes(full_disk, 2, tmp_path)
    for name in ('shards', 'file'):
        left = [path.name for path in (tmp_path / name).iterdir() if 'epoch_' in path.name]
        assert len(left) == 2  # the first one, and its shards
        assert all(each.startswith('epoch_1.') for each in left)
    run_processes(run, 2, tmp_path / 'file', {'shards': True, 'start': dict(resume=True)})


def test_shards_get_their_name_last_and_while_the_folder_is_still_the_run_s(tmp_path):
    states, folder = dict(shards=dict(folder='epoch_2.0.shards')), tmp_path / 'epoch_2.0.shards'
    asked = []
    for whole in (True, False):
        half = sharded_state._half(folder)
        half.mkdir()
        with naming_shards(tmp_path / 'epoch_2.pth', states, lambda: asked.append(folder.exists())) as last:
            assert owner_of(half) == tag()
            if whole:
                last()
        assert folder.is_dir()
        assert not half.exists()
    assert asked == [False]


class KillError(BaseException):
    """Ends the process where it is raised."""


def save_until_killed(path, folder, at):
    """A save of ``path`` with its shards in ``folder`` that is killed before or after the file is replaced."""
    states = dict(shards=dict(folder=folder.name))
    sharded_state._half(folder).mkdir()
    with naming_shards(path, states, lambda: None) as last, shards_go(path):
        last()
        if at == 'after':
            torch.save(dict(states, state_dict={}), path)
        raise KillError


@pytest.mark.parametrize('at, stay', [('before', 'old'), ('after', 'new')])
def test_a_kill_between_shards_and_their_file_leaves_what_the_file_names(tmp_path, monkeypatch, at, stay):
    path, other = tmp_path / 'epoch_2.pth', tmp_path / 'epoch_1.0.shards'
    folders = dict(old=tmp_path / 'epoch_2.0.shards', new=tmp_path / 'epoch_2.1.shards')
    torch.save(dict(shards=dict(folder=folders['old'].name), state_dict={}), path)
    folders['old'].mkdir()
    other.mkdir()  # somebody has taken its file away: not ours to delete
    with monkeypatch.context() as patch:
        patch.setattr(sharded_state, '_settle', lambda *_: None)  # a killed process does nothing more
        with pytest.raises(KillError):
            save_until_killed(path, folders['new'], at)
    assert all(folder.is_dir() for folder in folders.values())
    drop_loose_shards(tmp_path)
    assert sorted(tmp_path.glob('*.shards')) == sorted([other, folders[stay]])
    assert not list(folders[stay].iterdir())


def test_loose_shards_stay_beside_a_file_that_nobody_can_read(tmp_path):
    folder = tmp_path / 'epoch_2.0.shards'
    folder.mkdir()
    (folder / 'loose').touch()
    (tmp_path / 'epoch_2.pth').write_bytes(b'PK')
    drop_loose_shards(tmp_path)
    assert folder.is_dir()
    (tmp_path / 'epoch_2.pth').unlink()
    drop_loose_shards(tmp_path)
    assert not folder.is_dir()
