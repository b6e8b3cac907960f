"""Checkpoints: plain, atomic, found, and refused where they do not fit."""

import collections
import os

import numpy as np
import pytest
import torch
from torch import nn

from mmkernel.engine import (
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from mmkernel.engine.checkpoint import list_checkpoints, to_plain
from mmkernel.engine.history import LogHub
from mmkernel.engine.process_state import random_state, seed_everything, set_random_state


def training_file(folder, epoch, run='a', when=0.0):
    path = folder / f'epoch_{epoch}.pth'
    meta = dict(run=run, time=when, epoch=epoch, iter=epoch)
    if run is None:
        del meta['run']  # as earlier versions wrote it
    write_checkpoint(dict(meta=meta, state_dict=dict(w=torch.ones(2))), path)
    return path


def test_values_become_plain_and_load_without_an_allow_list(tmp_path):
    value = dict(
        array=np.arange(3),
        scalar=np.float64(0.5),
        flag=np.bool_(True),
        ordered=collections.OrderedDict(a=(1, [None, 'x'])),
    )
    write_checkpoint(to_plain(value), tmp_path / 'file.pth')
    found = read_checkpoint(tmp_path / 'file.pth')
    assert found['array'].tolist() == [0, 1, 2]
    assert (found['scalar'], found['flag'], found['ordered']) == (0.5, True, {'a': (1, [None, 'x'])})
    assert type(found['ordered']) is dict
    with pytest.raises(TypeError, match=r'checkpoint\.a\[1\] is a object'):
        to_plain(dict(a=[1, object()]))


def test_message_hub_round_trips():
    hub = LogHub('test_checkpoint')
    for value in (1.0, 2.5):
        hub.update_scalar('train/loss', value)
    hub.update_info('eta', np.float64(3.0))
    hub.update_info('cfg', 'text')
    plain = to_plain(hub.state_dict())
    other = LogHub('test_checkpoint_other')
    other.load_state_dict(plain)
    assert 'cfg' not in plain['runtime_info']
    assert other.get_scalar('train/loss').data[0].tolist() == [1.0, 2.5]
    assert other.get_info('eta') == 3.0


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = training_file(tmp_path, 1)
    before = path.read_bytes()
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        write_checkpoint(dict(bad=lambda: None), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ['epoch_1.pth']


def test_a_write_takes_away_nothing_of_others(tmp_path):
    (tmp_path / '.epoch_1.pth.tmp').write_bytes(b'another process writes this')
    training_file(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == ['.epoch_1.pth.tmp', 'epoch_2.pth']


@pytest.mark.parametrize('damage', [b'', b'half', None])
def test_the_furthest_file_that_opens_is_found(tmp_path, damage):
    training_file(tmp_path, 2, when=900.0)  # the clock was set back after it
    good, bad = training_file(tmp_path, 10, when=200.0), training_file(tmp_path, 11, when=300.0)
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2] if damage is None else damage)
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_7.pth')
    with pytest.warns(UserWarning, match='Skipped.*epoch_11.pth'):
        assert latest_checkpoint(tmp_path) == good
    with pytest.warns(UserWarning, match='Skipped'):
        assert [path.name for path, _ in list_checkpoints(tmp_path)] == ['epoch_2.pth', 'epoch_10.pth']


def test_checkpoints_of_two_runs_are_not_mixed(tmp_path):
    training_file(tmp_path, 1, run=None)
    furthest = training_file(tmp_path, 2)  # goes on with a run of an earlier version
    assert latest_checkpoint(tmp_path) == furthest
    training_file(tmp_path, 3, run='b')
    with pytest.raises(CheckpointError, match=r'3 runs \(epoch_1.pth; epoch_2.pth; epoch_3.pth\)'):
        latest_checkpoint(tmp_path)


def test_a_file_whose_bytes_have_changed_is_not_the_furthest(tmp_path):
    good, bad = training_file(tmp_path, 1), training_file(tmp_path, 2)
    ones = torch.ones(2).numpy().tobytes()
    bad.write_bytes(bad.read_bytes().replace(ones, bytes(8), 1))
    with pytest.warns(UserWarning, match='Skipped.*epoch_2.pth.*have changed'):
        assert latest_checkpoint(tmp_path) == good


def test_no_checkpoint():
    assert latest_checkpoint('no_such_folder') is None


def test_a_pickled_program_is_refused_and_not_run(tmp_path):
    class Program:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'ran'),)

    torch.save(dict(state_dict=Program()), tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='loading one can run code'):
        read_checkpoint(tmp_path / 'evil.pth')
    assert not (tmp_path / 'ran').exists()


def test_changed_bytes_in_a_file_that_still_opens_are_seen(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    write_checkpoint(dict(state_dict={'weight': torch.ones(1000)}), path)
    content = path.read_bytes()
    ones = torch.ones(100).numpy().tobytes()
    path.write_bytes(content.replace(ones, bytes(400), 1))
    assert torch.load(path, weights_only=True)['state_dict']['weight'].sum() == 900  # without a word
    with pytest.raises(CheckpointError, match='another checksum than was written'):
        read_checkpoint(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(dict(a=torch.ones(2)), path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(path)['a'].sum() == 2


@pytest.mark.parametrize(
    ('content', 'said'),
    [(b'', "epoch_1.pth' is empty: whatever wrote it was stopped"), (b'hello\n', 'torch.save has not written it')],
)
def test_a_file_that_is_no_checkpoint(tmp_path, content, said):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(path)


def test_a_missing_file_names_what_is_there(tmp_path):
    training_file(tmp_path, 3)
    with pytest.raises(FileNotFoundError, match='epoch_3.pth'):
        read_checkpoint(tmp_path / 'epoch_4.pth')


def network(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


@pytest.mark.parametrize('prefix', ['', 'module.', 'module._orig_mod.'])
def test_weights_load_without_the_prefixes_of_wrappers(tmp_path, prefix):
    source, target = network(), network()
    write_checkpoint(dict(state_dict={prefix + k: v for k, v in source.state_dict().items()}), tmp_path / 'w.pth')
    report = load_checkpoint(target, tmp_path / 'w.pth')
    assert report.exact
    assert len(report.matched) == 7
    torch.testing.assert_close(target[0].weight, source[0].weight)


def test_another_architecture_is_refused_with_a_report(tmp_path):
    write_checkpoint({**network().state_dict(), 'extra.weight': torch.ones(1)}, tmp_path / 'w.pth')
    target = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(4), nn.Linear(2, 2))
    before = target[0].weight.detach().clone()
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(target, tmp_path / 'w.pth')
    for text in (
        'another architecture',
        '5/9 tensors, 2 missing, 1 unexpected, 2 of another shape',
        '2.weight',
        'extra.weight',
        '0.weight (file (4, 3), model (5, 3))',
    ):
        assert text in str(error.value)
    assert torch.equal(target[0].weight, before)
    with pytest.warns(UserWarning, match='fits only in part'):
        report = load_checkpoint(target, tmp_path / 'w.pth', strict=False)
    assert (len(report.missing), len(report.unexpected), len(report.mismatched)) == (2, 1, 2)
    with pytest.raises(CheckpointError, match='0/2 tensors'):
        load_checkpoint(nn.Conv2d(1, 1, 1), tmp_path / 'w.pth', strict=False)


def test_random_state_round_trips_through_a_file(tmp_path):
    seed_everything(1, 2, 3)
    write_checkpoint(to_plain(random_state()), tmp_path / 'r.pth')

    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist()  # noqa: NPY002

    first = draw()
    set_random_state(read_checkpoint(tmp_path / 'r.pth'))
    assert draw() == first
    seed_everything(1, 2, 4)
    assert draw() != first
