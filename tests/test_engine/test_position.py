"""A run that goes on inside an epoch equals one that was never interrupted: weights, states, logs, random numbers, bit for bit."""

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from multiprocess import run_processes

from mmkernel.engine import load_config, read_checkpoint, train

sys.path.insert(0, str(Path(__file__).parent))
from tiny_training import TinyViews  # noqa: E402

ROOT, TINY = Path(__file__).parents[2], Path(__file__).parent / 'tiny_config.py'
sys.path.insert(0, str(ROOT / 'benchmarks'))
from small_runs import CLOCKS, SHORT, differences, small, thin  # noqa: E402

DIGITS = sorted(str(path.relative_to(ROOT / 'configs')) for path in ROOT.glob('configs/[!_]*/*digits*.py'))


def config(path, folder, **options):
    cfg = load_config(path, options)
    cfg.work_dir = str(folder)
    if path != TINY:
        cfg.default_hooks['probe'] = dict(type='OnlineProbeHook')
    return cfg


def same(a, b):
    assert not differences(a, b)


def go_on_from(path, folder, names, change=bool, **options):
    """Run, then go on in other folders from the files ``names``, and compare everything that the last epoch leaves.

    ``change``: what is done to the config.
    """

    def run(name, **start):
        cfg = config(path, folder / name, **options)
        change(cfg)
        return train(cfg, **start)

    options['default_hooks.checkpoint.every_steps'] = int(names[0].split('_')[-1].removesuffix('.pth'))
    runner = run('whole')
    last = f'epoch_{runner.max_epochs}.pth'
    for name in names:
        resumed = run(name, resume=str(folder / 'whole' / name))
        assert resumed.iter == runner.iter
        if runner.rank == 0:
            same(folder / 'whole' / last, folder / name / last)


@pytest.mark.parametrize(
    'path, workers, accumulation, virtual, names',
    [
        ('simclr/digits.py', 'persistent', 1, 2, ['epoch_0_step_1.pth']),
        ('moco/digits_v2.py', 2, 2, 1, ['epoch_0_step_2.pth', 'epoch_1_step_4.pth']),  # windows of 2, 2 and 1 batches
        ('swav/digits_queue.py', 0, 1, 2, ['epoch_1_step_3.pth']),
        ('byol/digits.py', 'persistent', 2, 1, ['epoch_0_step_1.pth']),
        ('deepcluster/digits_v2.py', 2, 1, 1, ['epoch_0_step_3.pth', 'epoch_1_step_9.pth']),
        ('deepcluster/digits_v1.py', 0, 2, 1, ['epoch_1_step_4.pth']),
        ('corinfomax/digits.py', 0, 1, 1, ['epoch_1_step_8.pth']),
        ('dbn/digits_shuffled_dbn.py', 'persistent', 1, 1, ['epoch_0_step_4.pth']),
        ('wmse/digits_2views.py', 2, 1, 2, ['epoch_0_step_1.pth']),
    ],
)
def test_inside_an_epoch(tmp_path, path, workers, accumulation, virtual, names):
    go_on_from(ROOT / 'configs' / path, tmp_path, names, **small(path, workers, accumulation, virtual))


@pytest.mark.slow
@pytest.mark.parametrize('path, workers', zip(DIGITS, itertools.cycle([0, 2])))
def test_every_digits_config(tmp_path, path, workers):
    options = {**SHORT, 'train_dataloader.num_workers': workers}
    if path.startswith('benchmarks'):  # schedules of mmengine
        del options['param_scheduler.warmup_epochs']
    names = ['epoch_0_step_3.pth', 'epoch_1_step_9.pth']
    go_on_from(ROOT / 'configs' / path, tmp_path, names, lambda cfg: thin(cfg, batch=32), **options)


def in_each(rank, world_size, folder, path, workers):
    options = {**small(path, workers), 'launcher': 'pytorch'}
    go_on_from(ROOT / 'configs' / path, Path(folder), ['epoch_0_step_3.pth'], **options)


@pytest.mark.parametrize(
    'path, workers',
    [
        ('deepcluster/digits_v2.py', 0),
        pytest.param('deepcluster/digits_v2.py', 'persistent', marks=pytest.mark.slow),
        pytest.param('moco/digits_v2.py', 2, marks=pytest.mark.slow),
        pytest.param('swav/digits_queue.py', 2, marks=pytest.mark.slow),
        pytest.param('wmse/digits_2views.py', 0, marks=pytest.mark.slow),
        pytest.param('sfrik/digits_L2_sharded.py', 0, marks=pytest.mark.slow),
    ],
)
def test_two_processes(tmp_path, path, workers):
    run_processes(in_each, 2, str(tmp_path), path, workers)


SCHEDULES = {
    'by epochs': [dict(type='CosineAnnealingLR', T_max=3)],
    'converted': [dict(type='PolyLR', power=2.0, eta_min=1e-4, convert_to_iter_based=True)],
    'rises, then falls': [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4), dict(type='MultiStepLR', milestones=[1, 2])
    ],
    'momentum': [dict(type='CosineAnnealingMomentum', eta_min=0.5, T_max=3), dict(type='ExponentialLR', gamma=0.9)],
    'with a function': [dict(type='OneCycleLR', eta_max=0.01, total_steps=16, by_epoch=False)],
    'with restarts': [dict(type='CosineRestartLR', periods=[5, 11], restart_weights=[1, 0.5], by_epoch=False, eta_min=0.0)],
}  # fmt: skip


@pytest.mark.parametrize('optimizer', [dict(type='LARS', lr=0.3), dict(type='AdamW', lr=0.01)], ids=['LARS', 'AdamW'])
@pytest.mark.parametrize('name', SCHEDULES)
def test_schedules_of_mmengine(tmp_path, name, optimizer):
    def change(cfg):
        cfg.param_scheduler, cfg.optim_wrapper.optimizer = SCHEDULES[name], optimizer

    options = {'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.max_keep': None, 'log_level': 'ERROR'}
    go_on_from(TINY, tmp_path, ['epoch_1_step_11.pth'], change, **options)


def logged(folder):
    """The rows of every start, without what they say of the machine."""
    files = sorted(folder.glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]


def test_hooks_that_count_and_what_is_logged(tmp_path):
    options = small('byol/digits.py') | {'default_hooks.monitor.interval': 3, 'default_hooks.logger.interval': 3}
    own = dict(
        knn=dict(type='KNNMonitorHook', interval=1, max_images=40),
        best=dict(type='KeepBestHook', images=40),
        ema=dict(type='EMAHook', ema_type='ExponentialMovingAverage'),
        freeze=dict(type='FreezeHook', layers={'neck': dict(epochs=1), 'backbone.conv1': dict(steps=7)}),
    )
    name = 'epoch_1_step_6.pth'
    go_on_from(ROOT / 'configs/byol/digits.py', tmp_path, [name], lambda cfg: cfg.default_hooks.update(own), **options)
    rows = logged(tmp_path / name)
    assert len(rows) == 4  # of the epoch: its end, and three monitors
    assert rows == logged(tmp_path / 'whole')[-len(rows) :]
    for file in (tmp_path / name).glob('best_*.pth'):
        same(tmp_path / 'whole' / file.name, file)


def own_statistics(rank, world_size, folder):
    """[running mean] of this process at the end, which is also that of a run that went on from within an epoch."""
    options = {'launcher': 'pytorch', 'train_cfg.max_epochs': 1, 'default_hooks.checkpoint.every_steps': 3}
    runner = train(config(TINY, Path(folder) / 'whole', **options))
    resumed = train(config(TINY, Path(folder) / 'again', **options), resume=f'{folder}/whole/epoch_0_step_3.pth')
    for (name, value), other in zip(runner.model.named_buffers(), resumed.model.buffers(), strict=True):
        assert torch.equal(value, other), name
    return [value for name, value in runner.model.named_buffers() if name.endswith('running_mean')]


def test_each_process_has_its_running_statistics_again(tmp_path):
    (first,), (second,) = run_processes(own_statistics, 2, str(tmp_path))
    assert not torch.equal(first, second)
    file = tmp_path / 'whole/epoch_0_step_3.pth'
    kept = read_checkpoint(file)['own_buffers']
    assert [sorted(part) for part in kept] == [[], ['backbone.1.running_mean', 'backbone.1.running_var']]
    train(config(TINY, tmp_path / 'alone', **{'train_cfg.max_epochs': 1}), resume=str(file))
    said = ' '.join(' '.join(log.read_text() for log in (tmp_path / 'alone').rglob('*.log')).split())
    assert said.count('running statistics') == 1
    assert 'each of 2 processes. The 1 of this run begin with those of process 0' in said


def test_images_that_were_used_are_not_read_again(tmp_path, monkeypatch):
    seen, read = [], TinyViews.__getitem__
    train(config(TINY, tmp_path / 'a', **{'default_hooks.checkpoint.every_steps': 6, 'train_cfg.max_epochs': 1}))
    monkeypatch.setattr(TinyViews, '__getitem__', lambda self, key: seen.append(key) or read(self, key))
    train(config(TINY, tmp_path / 'b', **{'train_cfg.max_epochs': 1}), resume=str(tmp_path / 'a/epoch_0_step_6.pth'))
    assert len(seen) == len(set(seen)) == 2 * 8


def test_batches_of_other_samplers_are_read_and_dropped(tmp_path):
    options = {'train_dataloader.sampler.type': 'DefaultSampler', 'default_hooks.checkpoint.max_keep': None}
    go_on_from(TINY, tmp_path, ['epoch_0_step_3.pth'], **options)


def test_a_kill_between_steps_loses_what_came_after_the_last_file(tmp_path):
    options = {'train_cfg.max_epochs': 8, 'default_hooks.checkpoint.every_steps': 3, 'log_level': 'ERROR'}
    words = [f'{key}={value}' for key, value in options.items()]
    command = [sys.executable, str(ROOT / 'tools/train.py'), str(TINY), '--work-dir', str(tmp_path / 'killed')]
    run = subprocess.Popen([*command, '--cfg-options', *words], stderr=subprocess.DEVNULL)
    while run.poll() is None and not list((tmp_path / 'killed').glob('epoch_[1-9]*_step_*.pth')):
        time.sleep(0.01)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    for folder in ('killed', 'whole'):
        train(config(TINY, tmp_path / folder, **options), resume=folder == 'killed')
        assert len(list((tmp_path / folder).glob('*.pth'))) == 3  # max_keep
    same(tmp_path / 'killed/epoch_8.pth', tmp_path / 'whole/epoch_8.pth')
