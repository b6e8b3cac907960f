"""Folders of shards beside a checkpoint: whole or not there, and named while the run still owns its folder."""

import errno

import pytest
import torch.distributed.checkpoint as dcp
from multiprocess import run_processes
from test_sharded_training import config, run

from mmkernel.engine import persistence, sharded_state, train
from mmkernel.engine.sharded_state import naming_shards
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
