"""What a person sees of a run: lines of 120 columns, a bar on a terminal, where everything lies, and no warning of Python."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_monitors import WATCHERS, config

from mmkernel.engine import last_words, train
from mmkernel.engine.closing import closing
from mmkernel.engine.log_line import COLUMNS, ROOM, Lines, duration, interval_line, part_names
from mmkernel.engine.progress import ProgressHook

ROOT = Path(__file__).resolve().parents[2]
TINY = Path(__file__).parent / 'tiny_config.py'
CONTROL = re.compile(r'[\x00-\x09\x0b-\x1f\x7f]')
VALUES = dict(
    lr=0.05, loss=30.8219, loss_alignment=21.7, loss_kernel=9.11, alignment=0.6126, kernel=18.527, mmd2=18.35,
    **{'embedding/rank': 51.7}, epoch=1, waiting=15.0, images_per_second=12_345.6, grad_norm=3.0,
)  # fmt: skip


def test_a_line_in_words():
    line = interval_line('epoch 1/20 step  5/11', VALUES | dict(memory=10_240), 245, room=200)
    assert line == (
        'epoch 1/20 step  5/11  loss 30.82  alignment 0.613  kernel 18.5  mmd2 18.4  lr 0.05  12,346 img/s  waiting 15 %  '
        '10.0 GB  4:05 left'
    )


def test_the_rate_goes_first_then_the_parts_from_the_last_on():
    lines = [interval_line('epoch 1/20', VALUES, 245, room=1000)]
    for _ in range(7):
        lines.append(interval_line('epoch 1/20', VALUES, 245, room=len(lines[-1]) - 1))
    assert [line.removeprefix('epoch 1/20  loss 30.82  ') for line in lines] == [
        'alignment 0.613  kernel 18.5  mmd2 18.4  lr 0.05  12,346 img/s  waiting 15 %  4:05 left',
        'alignment 0.613  kernel 18.5  mmd2 18.4  12,346 img/s  waiting 15 %  4:05 left',
        'alignment 0.613  kernel 18.5  …  12,346 img/s  waiting 15 %  4:05 left',
        'alignment 0.613  …  12,346 img/s  waiting 15 %  4:05 left',
        '…  12,346 img/s  waiting 15 %  4:05 left',
        '…  12,346 img/s  4:05 left',
        '…  4:05 left',
        '…',
    ]


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.dictionaries(st.text('abcdefgh_', min_size=1, max_size=60), NUMBERS, max_size=30), NUMBERS,
    st.integers(1, 10**6), st.integers(0, 10**9),
)  # fmt: skip
def test_no_line_is_longer_than_its_room(parts, loss, steps, left):
    clocks = dict(lr=1e-10, images_per_second=9.9e9, waiting=100.0, memory=1e6)
    line = interval_line(f'epoch {steps}/{steps} step {steps}/{steps}', dict(loss=loss, **parts, **clocks), left)
    assert len(line) <= ROOM
    assert f'step {steps}/{steps}  loss {loss:.4g}' in line
    assert line.endswith(' left')


def test_parts_are_the_unweighted_words_or_the_weighted_ones_without_them():
    assert part_names(VALUES) == ['alignment', 'kernel', 'mmd2']
    assert part_names(dict(loss=1, loss_a=2, loss_b=3, lr=1, base_lr=1)) == ['loss_a', 'loss_b']
    assert part_names(dict(loss=1, loss_total=1)) == []


def test_times_in_words():
    assert [duration(s) for s in (-1, 59, 3599, 3600, 86399, 93600)] == [
        '0:00',
        '0:59',
        '59:59',
        '1:00:00',
        '23:59:59',
        '1 d 2 h',
    ]


def formatted(text, level=logging.INFO, stream=None):
    return Lines(stream).format(logging.LogRecord('x', level, '', 0, text, (), None))


def test_a_long_text_is_a_paragraph_and_what_is_indented_stays():
    path = f'/{"folder/" * 30}file.pth'
    lines = formatted(f'{"word " * 60}{path}\n  mmkernel knn {path}\nend').splitlines()
    assert re.match(r'\d\d-\d\d \d\d:\d\d:\d\d word word', lines[0])
    assert all(len(line) <= COLUMNS for line in lines if path not in line)
    assert lines[-2:] == [f'  mmkernel knn {path}', 'end']
    assert sum(path in line for line in lines) == 2  # never broken
    assert formatted('x', logging.WARNING)[15:] == 'WARNING x'
    terminal = SimpleNamespace(isatty=lambda: True)
    assert formatted('x', logging.WARNING, terminal)[15:] == '\x1b[33mWARNING \x1b[0mx'
    assert formatted('x', stream=terminal)[15:] == 'x'


def test_every_quantity_once_and_no_line_is_too_long(tmp_path):
    """A head of many parts, with all monitors: what a line has no room for stands among the scalars."""
    cfg = config(tmp_path, 'vicreg/digits_byol_plus_moments', {**WATCHERS, 'progress': dict(type='ProgressHook')}, **{
        'log_level': 'INFO', 'train_cfg.max_epochs': 2, 'model.predictor.dims': (8, 8)})  # fmt: skip
    runner = train(cfg)
    text = next(tmp_path.glob('*/*.log')).read_text()
    assert not CONTROL.search(text)
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert 'Warning' not in text
    steps = [line for line in text.splitlines() if ' step ' in line]
    assert len(steps) == 10
    assert all('…' in line for line in steps)
    assert len(re.findall(r'Epoch \d: kNN [\d.]+ % of 60 images, k = 20 of 60; (the best so far|best )', text)) == 2
    names = next(tmp_path.glob('*/vis_data/scalars.csv')).read_text().splitlines()[0].split(',')
    assert {'step', 'epoch', 'loss', 'lr', 'waiting', 'images_per_second', 'moments_covariance'} <= set(names)
    assert not {'iter', 'time', 'data_time', 'eta'} & set(names)
    words = [name.rpartition('/')[2] for name in names if not name.startswith(('knn/', 'probe/', 'keep_best/'))]
    assert len(set(words)) == len(words)
    assert runner.message_hub.runtime_info['best_knn']['epoch'] in (1, 2)


def test_the_end_says_where_everything_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = train(config('runs/a b', watchers=WATCHERS, **{'train_cfg.max_epochs': 2, 'log_level': 'INFO'}))
    folder, best = Path('runs/a b'), runner.message_hub.runtime_info['best_knn']
    said = closing(runner)
    assert said.splitlines()[0].startswith('Done: 2 of 2 epochs in 0:')
    rows = dict(line.split(maxsplit=1) for line in said.splitlines()[1:] if not line.startswith(('  mmkernel', 'Next')))
    assert rows['last'] == 'epoch_2.pth'
    assert rows['folder'] == str(folder)
    for name in ('log', 'scalars', 'table', 'views'):
        assert (folder / rows[name]).is_file(), name
    assert f'epoch_{best["epoch"]}.pth: kNN {best["score"]:.1f} %' in said
    assert 'best_rank.pth: by rank, which needs no labels, after epoch ' in said
    file = "'runs/a b/epoch_2.pth'"
    commands = [f'mmkernel {word} {file}' for word in ('knn', 'linear', 'diagnose')] + ["mmkernel plot 'runs/a b'"]
    assert [line.strip() for line in said.split('Next:\n')[1].splitlines()] == commands
    del runner.cfg.evaluation['train']  # nothing labelled in it
    assert f'mmkernel knn {file} --train LABELLED_FOLDER --test LABELLED_FOLDER\n' in closing(runner)
    log = (folder / rows['log']).read_text()
    assert said.split('\n', 1)[1] in log  # but for the seconds
    assert log.count('Saved epoch_1.pth, the best so far (kNN ') == 1


def test_a_best_file_that_is_not_there_is_not_named(tmp_path):
    runner = train(config(tmp_path, watchers=dict(knn=WATCHERS['knn']), **{'train_cfg.max_epochs': 1}))
    (tmp_path / 'epoch_1.pth').unlink()
    assert re.search(r'best +epoch 1: kNN [\d.]+ % \(its file was not kept\)', closing(runner))
    assert 'no checkpoint was written' in closing(runner)
    assert closing(runner).endswith(f'Next:\n  mmkernel plot {tmp_path}')


def command(folder, *options, config=TINY):
    words = ['--work-dir', str(folder), '--cfg-options', 'param_scheduler.warmup_epochs=0', *options]
    return [sys.executable, str(ROOT / 'tools/train.py'), str(config), *words]


def on_a_terminal(words, until=None, **environment):
    """(exit code, what came out) of a command whose terminal is ours; at ``until`` in it, Ctrl-C."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM='xterm-256color', COLUMNS='100', **environment)
        os.execv(words[0], words)
    out, end = b'', time.monotonic() + 200
    try:
        while time.monotonic() < end and (got := os.read(terminal, 4096)):
            out += got
            if until and until.encode() in out:
                os.write(terminal, b'\x03')
                until = None
    except OSError:  # Linux says EIO where the other end has closed
        pass
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out.decode()


def seen(text):
    """Lines as a terminal shows them: what is erased, or written over, is gone."""
    shown = [line.split('\x1b[2K')[-1] for line in text.replace('\r\n', '\n').split('\n')]
    return [re.sub(r'\x1b\[[\d;?]*[a-zA-Z]|\r', '', line) for line in shown]


def test_a_bar_on_a_terminal_and_plain_lines_in_the_file(tmp_path):
    code, text = on_a_terminal(command(tmp_path))
    assert code == 0
    assert re.search(r'epoch 1/4 .*step 1/32', text)
    lines, (log,) = seen(text), tmp_path.glob('*/*.log')
    assert not CONTROL.search(log.read_text())
    written = re.findall(r'^\d\d-\d\d \d\d.*', log.read_text(), re.MULTILINE)
    assert len(written) > 10
    assert not set(written) - set(lines)  # whole, above the bar
    assert text.rfind('\x1b[?25l') < text.rfind('\x1b[?25h')  # the cursor is there again
    assert '━' not in seen(text)[-1]


@pytest.mark.parametrize('off', [{}, dict(switch='0'), dict(rank=1), dict(tty=False), dict(term='dumb')], ids=str)
def test_a_bar_only_on_the_terminal_of_process_0(monkeypatch, off):
    terminal = io.StringIO()
    terminal.isatty = lambda: off.get('tty', True)
    monkeypatch.setattr(sys, 'stdout', terminal)
    monkeypatch.setenv('MMKERNEL_PROGRESS', off.get('switch', '1'))
    monkeypatch.setenv('TERM', off.get('term', 'xterm'))
    monkeypatch.setenv('FORCE_COLOR', '1')  # says nothing of a bar
    hook, runner = ProgressHook(), SimpleNamespace(rank=off.get('rank', 0), max_iters=4, iter=0)
    hook.before_train(runner)
    assert (hook.bar is None) == bool(off)
    hook.leave_run(runner)
    assert (terminal.getvalue() == '') == bool(off)
    assert sys.stdout is terminal


def test_ctrl_c_saves_and_leaves_the_terminal_as_it_was(tmp_path):
    code, text = on_a_terminal(command(tmp_path, 'train_cfg.max_epochs=2000'), until='step 9')
    assert code == 130
    lines = seen(text)
    assert any(line.startswith('SIGINT: the run saves after this step and ends.') for line in lines)
    assert 'Stopped by SIGINT' in text
    assert text.rfind('\x1b[?25l') < text.rfind('\x1b[?25h')
    assert not CONTROL.search(next(tmp_path.glob('*/*.log')).read_text())
    assert list(tmp_path.glob('*.pth'))


def test_a_terminal_that_goes_away_does_not_end_the_run(tmp_path, monkeypatch):
    hook, told = ProgressHook(), []

    def gone():
        raise OSError(5, 'Input/output error')

    hook.bar = SimpleNamespace(update=lambda *_, **__: told.append(1), refresh=gone, stop=gone)
    hook.task, hook.drawn = 0, 0.0
    monkeypatch.setattr(last_words, 'erase', '\r')
    hub = SimpleNamespace(log_scalars={}, runtime_info={})
    runner = SimpleNamespace(iter=1, max_iters=4, epoch=0, max_epochs=1, message_hub=hub)
    for _ in range(2):
        hook.after_train_iter(runner, 0)
    assert (hook.bar, told, last_words.erase) == (None, [1], '')


@pytest.mark.parametrize('processes', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_says_no_warning_of_python(tmp_path, processes):
    """Of torch, mmengine or pydantic: nobody at the keyboard can act on them."""
    options = ['train_cfg.max_epochs=2', 'train_dataloader.num_batch_per_epoch=3', 'train_dataloader.num_workers=1',
               'model.backbone.channels=(4,4,4,8)', 'train_dataloader.batch_size=32',
               'default_hooks.probe.type=OnlineProbeHook', 'default_hooks.best.type=KeepBestHook',
               'default_hooks.logger.interval=1', 'default_hooks.knn.interval=1']  # fmt: skip
    words = command(tmp_path, *options, config=ROOT / 'configs/vicreg/digits.py')
    if processes > 1:
        words = ['bash', str(ROOT / 'tools/dist_train.sh'), words[2], str(processes), *words[3:]]
    environment = {**os.environ, 'PYTHONWARNINGS': 'default::FutureWarning,default::UserWarning'}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)
    text = done.stdout + done.stderr + next(tmp_path.glob('*/*.log')).read_text()
    assert done.returncode == 0, text[-3000:]
    assert not [line for line in text.splitlines() if 'Warning' in line or 'Failed to search' in line]
    assert done.stderr == ''
    assert not CONTROL.search(done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= COLUMNS + len(str(tmp_path))  # a path is not broken
