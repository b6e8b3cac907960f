"""The share of time that goes by waiting for data: exact with a clock of the test's own, in the log, with advice."""

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import LogProcessor

from mmkernel.engine import Runner, load_config, log_line, waiting
from mmkernel.registry import DATASETS, HOOKS, MODELS

sys.path.insert(0, str(Path(__file__).parent))
from tiny_training import TinyModel, TinyViews  # noqa: E402

CLOCK = SimpleNamespace(now=0.0)


@DATASETS.register_module()
class SlowViews(TinyViews):
    """Each image takes a second: 8 a batch."""

    def __getitem__(self, key):
        CLOCK.now += 1
        return super().__getitem__(key)


@MODELS.register_module()
class SlowModel(TinyModel):
    """A step takes 24 seconds."""

    def forward(self, *args, **kwargs):
        CLOCK.now += 24
        return super().forward(*args, **kwargs)


@HOOKS.register_module()
class BetweenEpochs(Hook):
    def after_train_epoch(self, runner):
        CLOCK.now += 10_000


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    CLOCK.now = 0.0
    monkeypatch.setattr(waiting, 'time', SimpleNamespace(perf_counter=lambda: CLOCK.now))


def config(folder, **options):
    given = {
        'model.type': 'SlowModel',
        'train_dataloader.dataset.type': 'SlowViews',
        'train_cfg.max_epochs': 2,
        **options,
    }
    cfg = load_config(Path(__file__).parent / 'tiny_config.py', given)
    cfg.work_dir, cfg.default_hooks.logger.interval, cfg.param_scheduler.warmup_epochs = str(folder), 2, 0
    return cfg


def test_the_share_is_in_the_line_and_among_the_scalars(tmp_path):
    """Of 8 + 24 seconds a quarter; the first batch of the run does not count, nor what happens between epochs."""
    cfg = config(tmp_path)
    cfg.default_hooks.between = dict(type='BetweenEpochs')
    runner = Runner.from_cfg(cfg)
    runner.train()
    file = next(tmp_path.glob('*/vis_data/scalars.json'))
    found = [json.loads(line)['waiting'] for line in file.read_text().splitlines()]
    assert found == pytest.approx([100 * 8 / 56] + [25.0] * 7)
    text = next(tmp_path.glob('*/*.log')).read_text()
    assert text.count('  waiting 25 %  ') == 7
    assert (
        ' '.join(text.split()).count('25 % of the time goes by waiting for data. Set in train_dataloader: num_workers=')
        == 1
    )


class Event:
    """Of a device that works for ``at``; over when the clock says so."""

    def __init__(self, at):
        self.at = at

    def query(self):
        return CLOCK.now >= self.at

    def elapsed_time(self, other):
        return 1000 * (other.at - self.at)


def device_events(monkeypatch, busy):
    """A device that works ``busy`` seconds on each step, in order; the host queues a step in a second."""
    free = [0.0]

    def event(self):
        free[0] = max(free[0], CLOCK.now)
        return Event(free[0])

    def step():
        CLOCK.now += 1
        free[0] = max(free[0], CLOCK.now) + busy

    monkeypatch.setattr(waiting.Waiting, 'event', event)
    return step, free


def slow_loader(steps, seconds):
    for i in range(steps):
        CLOCK.now += seconds
        yield i


@pytest.mark.parametrize('busy, expected', [(10, 5 / 106), (2, 32 / 62)])
def test_a_busy_device_does_not_wait(monkeypatch, busy, expected):
    """The loader takes 5 s, the host 1 s. A device of 10 s a step has no work only after the log has waited for it, one of 2 s
    in 3 of each 6 s as well."""
    step, free = device_events(monkeypatch, busy)
    meter = waiting.Waiting(torch.device('cuda'))
    for i in meter.batches(slow_loader(40, 5)):
        step()
        if i % 10 == 9:
            CLOCK.now = max(CLOCK.now, free[0])  # the log reads a value, and so waits for the device
            share = meter.share()
    assert len(meter.pending) == 0
    assert share == pytest.approx(expected)


def test_events_that_are_not_over_count_later(monkeypatch):
    step, free = device_events(monkeypatch, 100)
    meter = waiting.Waiting(torch.device('cuda'))
    for i, _ in enumerate(meter.batches(slow_loader(4, 5))):
        step()
        assert len(meter.pending) == i
    CLOCK.now = free[0]
    meter.look()
    assert (len(meter.pending), meter.waited) == (0, 0.0)


class Loader(SimpleNamespace):
    def __len__(self):
        return 9


def told(shares, monkeypatch, caplog):
    monkeypatch.setattr(LogProcessor, 'get_log_after_iter', lambda *_: ({'loss': 1.0}, ''))
    loader = Loader(num_workers=1, persistent_workers=False, prefetch_factor=2, dataset=object())
    meter = SimpleNamespace(device=torch.device('cpu'), share=iter(shares).__next__, pace=2.0)
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(waiting=meter),
        train_dataloader=loader,
        logger=logging.getLogger('told'),
        work_dir='run',
        rows=64,
        message_hub=SimpleNamespace(runtime_info={}),
    )
    log = log_line.RunLog()
    lines = [log.get_log_after_iter(runner, 0, 'train')[1] for _ in shares]
    return lines, [record.message for record in caplog.records]


def test_advice_comes_again_when_the_share_has_doubled(monkeypatch, caplog):
    lines, advice = told([0.1, 0.2, 0.25, 0.3, 0.49, 0.6, 0.05, 0.95], monkeypatch, caplog)
    ends = ['  waiting 10 %', '  waiting 20 %', '  waiting 25 %']
    assert lines[:3] == [f'step 1/9  loss 1  128 img/s{end}' for end in ends]
    assert [text[:2] for text in advice] == ['25', '60']


@pytest.mark.parametrize(
    'loader, cores, cuda, words, absent',
    [
        (
            dict(num_workers=0),
            8,
            False,
            ['num_workers=7 (it is 0; this machine has 8 cores)'],
            ['persistent', 'views_on'],
        ),
        (dict(num_workers=3), 4, False, ['prefetch_factor=4 (it is 2)'], ['num_workers']),
        (dict(num_workers=3, persistent_workers=False), 4, False, ['persistent_workers=True'], ['views_on']),
        (dict(num_workers=3), 4, True, ["dataset.views_on='auto'"], ['num_workers']),
        (dict(num_workers=3, prefetch_factor=8), 4, False, ['All cores make views already'], ['Set in']),
    ],
)
def test_advice_names_what_to_change(monkeypatch, loader, cores, cuda, words, absent):
    monkeypatch.setattr(waiting, 'usable_cores', lambda: cores)
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    data = SimpleNamespace(views_on='worker')
    loader = SimpleNamespace(**{**dict(persistent_workers=True, prefetch_factor=2, dataset=data), **loader})
    meter = SimpleNamespace(device=torch.device('cuda' if cuda else 'cpu'))
    text = waiting.advice(
        SimpleNamespace(train_dataloader=loader, train_loop=SimpleNamespace(waiting=meter), work_dir='run'), 0.256
    )
    assert text.startswith('26 % of the time goes by waiting for data.')
    assert text.endswith('mmkernel data check run/config.py')
    assert all(word in text for word in words)
    assert not any(word in text for word in absent)


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(waiting, 'usable_cores', lambda: 64)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
    loader = SimpleNamespace(num_workers=2, persistent_workers=True, prefetch_factor=4, dataset=object())
    meter = SimpleNamespace(device=torch.device('cpu'))
    text = waiting.advice(
        SimpleNamespace(train_dataloader=loader, train_loop=SimpleNamespace(waiting=meter), work_dir='run'), 0.5
    )
    assert 'num_workers=7 (it is 2; this machine has 64 cores for 8 processes)' in text
