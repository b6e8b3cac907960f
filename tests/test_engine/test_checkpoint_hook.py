"""When a run saves, and in which order its files stand."""

from functools import partial
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from multiprocess import run_processes
from test_position import TINY, config

from mmkernel.engine import (
    CheckpointError,
    CheckpointHook,
    RunFolderError,
    checkpoint_hook,
    latest_checkpoint,
    read_checkpoint,
    train,
    write_checkpoint,
)
from mmkernel.engine.poll import Poll
from mmkernel.registry import HOOKS, LOOPS


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def short(folder, epochs=2, **options):
    own = {f'default_hooks.checkpoint.{key}': value for key, value in options.pop('checkpoint', {}).items()}
    return config(TINY, folder, **{'train_cfg.max_epochs': epochs, 'log_level': 'ERROR', **own, **options})


def test_steps_are_counted_over_epochs_and_the_last_of_an_epoch_is_its_end(tmp_path):
    train(short(tmp_path, 3, checkpoint=dict(interval=3, every_steps=4, max_keep=None)))
    assert names(tmp_path) == [
        'epoch_0_step_4.pth', 'epoch_1.pth', 'epoch_1_step_12.pth', 'epoch_2.pth', 'epoch_2_step_20.pth', 'epoch_3.pth'
    ]  # fmt: skip
    meta = read_checkpoint(tmp_path / 'epoch_1_step_12.pth')['meta']
    assert (meta['epoch'], meta['batch'], meta['iter'], meta['steps_per_epoch']) == (1, 4, 12, 8)


def test_a_step_is_an_accumulation_window(tmp_path):
    options = {'optim_wrapper.accumulative_counts': 3}  # of 3, 3 and 2 batches
    train(short(tmp_path, checkpoint=dict(every_steps=2, max_keep=None), **options))
    assert names(tmp_path) == ['epoch_0_step_2.pth', 'epoch_1.pth', 'epoch_1_step_4.pth', 'epoch_2.pth']
    assert read_checkpoint(tmp_path / 'epoch_0_step_2.pth')['meta']['batch'] == 6


@pytest.mark.parametrize('last', ['epoch_1_step_9.pth', 'epoch_1.pth', 'epoch_0_step_6.pth'])
def test_the_furthest_goes_on_and_an_earlier_one_is_refused(tmp_path, last):
    cfg = short(tmp_path, checkpoint=dict(every_steps=3, max_keep=None))
    train(cfg)
    order = ['epoch_0_step_3.pth', 'epoch_0_step_6.pth', 'epoch_1.pth', 'epoch_1_step_9.pth']
    with pytest.raises(RunFolderError, match='has gone further'):
        train(cfg, resume=str(tmp_path / last))
    for name in set(names(tmp_path)) - {*order[: order.index(last) + 1]}:
        (tmp_path / name).unlink()
    assert latest_checkpoint(tmp_path).name == last
    assert train(cfg, resume=True).iter == 16
    with pytest.raises(RunFolderError, match='epoch_0_step_3'):
        train(cfg)  # not without --resume


def test_old_files_go_whatever_their_names(tmp_path):
    train(short(tmp_path, checkpoint=dict(every_steps=3, max_keep=2)))
    assert names(tmp_path) == ['epoch_1_step_15.pth', 'epoch_2.pth']


def test_a_kill_between_the_last_file_and_the_oldest_leaves_none_too_many(tmp_path):
    cfg = short(tmp_path, checkpoint=dict(every_steps=3, max_keep=None))
    train(cfg)
    assert len(names(tmp_path)) == 7
    cfg.default_hooks.checkpoint.max_keep = 2
    train(cfg, resume=True)
    assert names(tmp_path) == ['epoch_1_step_15.pth', 'epoch_2.pth']


def test_a_resume_may_save_at_other_steps_and_keeps_as_many_files(tmp_path):
    train(short(tmp_path, 1, checkpoint=dict(every_steps=3, max_keep=None)))
    for path in tmp_path.glob('*.pth'):  # as an earlier version wrote them
        content = read_checkpoint(path)
        content['meta']['run'] = None
        write_checkpoint(content, path)
    assert train(short(tmp_path, 2, checkpoint=dict(every_steps=5, max_keep=2)), resume=True).iter == 16
    assert names(tmp_path) == ['epoch_1_step_15.pth', 'epoch_2.pth']


class Clock:
    """Hours pass at each look."""

    now = 0

    def monotonic(self):
        self.now += 3600
        return self.now


def test_minutes(tmp_path, monkeypatch):
    train(short(tmp_path / 'slow', checkpoint=dict(every_minutes=1000)))
    assert names(tmp_path / 'slow') == ['epoch_1.pth', 'epoch_2.pth']
    monkeypatch.setattr(checkpoint_hook, 'time', Clock())
    train(short(tmp_path / 'fast', 1, checkpoint=dict(every_minutes=90, max_keep=None)))  # every second look
    assert names(tmp_path / 'fast') == [*(f'epoch_0_step_{n}.pth' for n in (2, 4, 6)), 'epoch_1.pth']


class Still:
    """No time passes, in the processes that are not asked."""

    def monotonic(self):
        return 0


def polled(rank, world_size, folder):
    polls = Poll('count', seconds=0.0), Poll('rank', seconds=0.0), Poll('seldom', seconds=3600.0)
    heard = [[poll(lambda: rank + 3) for poll in polls] for _ in range(4)]
    checkpoint_hook.time = Still() if rank else Clock()
    checkpoint_hook.Poll = partial(Poll, seconds=0.0)
    own = dict(every_minutes=90, max_keep=None)
    train(short(Path(folder), 1, checkpoint=own, launcher='pytorch', **{'train_dataloader.batch_size': 4}))
    return heard


def test_process_0_decides_for_all(tmp_path):
    heard = run_processes(polled, 2, str(tmp_path))
    assert heard[0] == heard[1]
    assert [row[:2] for row in heard[0]] == [[3, 3]] * 4
    assert [row[2] for row in heard[0]] == [3, 3, None, None]  # the second poll tells how fast steps are
    assert names(tmp_path) == [*(f'epoch_0_step_{n}.pth' for n in (2, 4, 6)), 'epoch_1.pth']


def test_an_epoch_of_another_length_goes_on_at_the_same_part(tmp_path, caplog):
    train(short(tmp_path / 'a', checkpoint=dict(every_steps=6, max_keep=None)))
    file = str(tmp_path / 'a/epoch_0_step_6.pth')  # 6 of 8
    options = {'train_dataloader.batch_size': 16, 'optim_wrapper.accumulative_counts': 2}  # 3 of 4, and windows of 2
    run = train(short(tmp_path / 'b', checkpoint=dict(every_steps=1, max_keep=None), **options), resume=file)
    assert run.iter == 8
    assert names(tmp_path / 'b') == ['epoch_1.pth', 'epoch_1_step_3.pth', 'epoch_2.pth']


@HOOKS.register_module()
class SavesAnywhere(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.save_checkpoint(runner.work_dir, 'mine.pth')


@LOOPS.register_module()
class OwnLoop:
    epoch = iter = 0

    def __init__(self, runner, dataloader, max_epochs):
        self.runner, self.dataloader, self.max_epochs, self.max_iters = runner, dataloader, max_epochs, max_epochs * 8

    def run(self):
        self.runner.call_hook('before_train')


def test_what_cannot_be_resumed_is_not_written(tmp_path):
    cfg = short(tmp_path / 'a', **{'optim_wrapper.accumulative_counts': 3})
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='SavesAnywhere')]
    with pytest.raises(RuntimeError, match='inside an accumulation window.*stepped'):
        train(cfg)
    assert names(tmp_path / 'a') == []
    cfg = short(tmp_path / 'b', checkpoint=dict(every_steps=2))
    cfg.train_cfg = dict(type='OwnLoop', max_epochs=2)
    with pytest.raises(ValueError, match='every_steps.*OwnLoop cannot go on'):
        train(cfg)
    train(short(tmp_path / 'c', checkpoint=dict(every_steps=5, max_keep=None)))
    del cfg.default_hooks.checkpoint['every_steps']
    with pytest.raises(CheckpointError, match='OwnLoop cannot go on inside an epoch'):
        train(cfg, resume=str(tmp_path / 'c/epoch_0_step_5.pth'), resume_anyway=True)


@pytest.mark.parametrize(
    'settings', [dict(every_steps=0), dict(every_steps=1.5), dict(every_minutes=-1), dict(max_keep=0)]
)
def test_bad_settings(settings):
    with pytest.raises(ValueError, match=f'CheckpointHook.{[*settings][0]}'):
        CheckpointHook(**settings)
