"""Signals: the run saves after its step and ends with a code that says what to do; the same command with --resume goes on."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from multiprocess import run_processes
from test_checkpoint_hook import names, short
from test_position import ROOT, TINY, same
from torch.utils.data import DataLoader

from mmkernel.engine import Preempted, train
from mmkernel.engine.preemption import MARKER, PreemptionHook
from mmkernel.owner import born
from mmkernel.registry import HOOKS

FOREVER = ['train_cfg.max_epochs=2000', 'default_hooks.checkpoint.max_keep=2']


@HOOKS.register_module()
class Signals(Hook):
    """This process gets a signal in the middle of a step."""

    def __init__(self, number, step=5, rank=0):
        self.number, self.step, self.rank = number, step, rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if (runner.iter, runner.rank) == (self.step, self.rank):
            os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def _handlers():
    numbers = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def signalled(folder, number, step=5, rank=0, **options):
    cfg = short(folder, **options)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='Signals', number=int(number), step=step, rank=rank)]
    return cfg


@pytest.mark.parametrize(
    'number, code', [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=['TERM', 'USR1', 'INT']
)
def test_the_step_is_finished_and_saved(tmp_path, number, code):
    with pytest.raises(Preempted) as stop:
        train(signalled(tmp_path / 'a', number))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # what a launcher sends while the process ends
    assert stop.value.code == code
    assert names(tmp_path / 'a') == ['epoch_0_step_6.pth']
    train(short(tmp_path / 'a'), resume=True)
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    train(short(tmp_path / 'b'))
    assert signal.signal(signal.SIGUSR1, before) is signal.SIG_DFL  # as it was before the run
    same(tmp_path / 'a/epoch_2.pth', tmp_path / 'b/epoch_2.pth')


def test_windows_are_finished_and_no_file_is_one_too_many(tmp_path):
    with pytest.raises(Preempted):
        train(signalled(tmp_path / 'a', signal.SIGUSR1, 3, **{'optim_wrapper.accumulative_counts': 3}))
    assert names(tmp_path / 'a') == ['epoch_0_step_2.pth']
    with pytest.raises(Preempted):
        train(signalled(tmp_path / 'b', signal.SIGUSR1, 3, checkpoint=dict(every_steps=4)))
    assert names(tmp_path / 'b') == ['epoch_0_step_4.pth']
    with pytest.raises(Preempted):
        train(signalled(tmp_path / 'c', signal.SIGUSR1, 4, checkpoint=dict(every_steps=2, max_keep=1)))
    assert names(tmp_path / 'c') == ['epoch_0_step_5.pth']


@HOOKS.register_module()
class ManySignals(Hook):
    """In one step."""

    def __init__(self, step):
        self.step = step

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.step:
            for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)


@pytest.mark.parametrize('step', [0, 15])
def test_several_signals_in_the_first_and_the_last_step_of_a_run(tmp_path, step):
    cfg = short(tmp_path, checkpoint=dict(every_steps=1, max_keep=2))
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='ManySignals', step=step)]
    with pytest.raises(Preempted, match='75'):  # the first counts
        train(cfg)
    assert train(short(tmp_path, checkpoint=dict(every_steps=1, max_keep=2)), resume=True).iter == 16
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize('window, steps', [(1, 8), (3, 3)])  # windows of 3, 3 and 2 batches
def test_after_the_last_step_of_an_epoch_its_end_is_left_to_the_next_start(tmp_path, window, steps):
    options = {'optim_wrapper.accumulative_counts': window}
    with pytest.raises(Preempted):
        train(signalled(tmp_path / 'a', signal.SIGUSR1, 7, **options))
    assert names(tmp_path / 'a') == [f'epoch_0_step_{steps}.pth']
    train(short(tmp_path / 'a', **options), resume=True)
    assert names(tmp_path / 'a') == [f'epoch_0_step_{steps}.pth', 'epoch_1.pth', 'epoch_2.pth']
    train(short(tmp_path / 'b', **options))
    same(tmp_path / 'a/epoch_2.pth', tmp_path / 'b/epoch_2.pth')


def test_the_word_for_the_launcher(tmp_path, monkeypatch):
    monkeypatch.setenv(MARKER, str(tmp_path / 'code'))
    with pytest.raises(Preempted) as stop:
        train(signalled(tmp_path / 'a', signal.SIGTERM))
    assert (stop.value.code, (tmp_path / 'code').read_text()) == (0, '75\n')
    train(short(tmp_path / 'a'), resume=True)
    assert (tmp_path / 'code').read_text() == 'begun\n'  # the word of an earlier start decides nothing


@pytest.mark.parametrize(
    'word, asked, ended, code',
    [
        ('75', False, 0, 75), ('begun', False, 0, 0), ('begun', False, 1, 1),
        ('', False, 1, 1), ('', True, 1, 75), ('begun', True, 1, 1),
    ],
)  # fmt: skip
def test_the_code_of_the_script(tmp_path, word, asked, ended, code):
    stand_in = tmp_path / 'python'  # for torchrun
    tell = f'if [ -n "{word}" ]; then echo {word} >$MMKERNEL_STOP_WORD; fi'
    ask = 'sleep 0.3 & kill -TERM $PPID; wait; sleep 0.1' if asked else ''  # the sleep stands for a process of the run
    stand_in.write_text(f'#!/bin/bash\n[ "$2" = torch.distributed.run ] || exit 0\n{tell}\n{ask}\nexit {ended}\n')
    stand_in.chmod(0o755)
    run = start(['bash', str(ROOT / 'tools/dist_train.sh'), 'config.py', '1'], PYTHON=str(stand_in))
    said = run.communicate(timeout=60)[0]
    assert run.returncode == code, said


@pytest.mark.parametrize('name', ['seconds', 'patience'])
def test_bad_settings(name):
    with pytest.raises(ValueError, match=f'PreemptionHook.{name}'):
        PreemptionHook(**{name: -1})


@HOOKS.register_module()
class LooksWithWorkers(Hook):
    """An evaluation with a loader of its own; meanwhile a signal reaches every process of the run."""

    priority = 'LOW'

    def after_train_epoch(self, runner):
        loader = iter(DataLoader(range(40), num_workers=2))
        next(loader)
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert len(list(loader)) == 39


def interrupted_at_an_evaluation(rank, world_size, folder):
    cfg = short(Path(folder))
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='LooksWithWorkers')]
    try:
        train(cfg)
    except Preempted as stop:
        return [stop.code, names(Path(folder))]


def test_workers_of_an_evaluation_count_no_interrupt(tmp_path):
    assert run_processes(interrupted_at_an_evaluation, 1, str(tmp_path)) == [[130, ['epoch_1.pth']]]


def on_the_second(rank, world_size, folder):
    cfg = signalled(Path(folder), signal.SIGUSR1, rank=1, epochs=20, launcher='pytorch')
    cfg.default_hooks.preemption.seconds = 0.0
    try:
        train(cfg)
    except Preempted as stop:
        return [stop.code, names(Path(folder))]


def test_a_signal_to_one_process_stops_all_at_one_step(tmp_path):
    first, second = run_processes(on_the_second, 2, str(tmp_path))
    assert first == second
    assert first[0] == 75
    assert first[1] in (
        ['epoch_1.pth', f'epoch_1_step_{n}.pth'] for n in (6, 7)
    )  # of 4 steps; the signal came in the 6th


def command(folder, *options):
    words = ['--work-dir', str(folder), '--cfg-options', *FOREVER, *options]
    return [sys.executable, str(ROOT / 'tools/train.py'), str(TINY), *words]


def start(words, **environment):
    own = {**os.environ, 'PYTHON': sys.executable, 'CUDA_VISIBLE_DEVICES': '', **environment}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(words, env=own, start_new_session=True, preexec_fn=hear_ctrl_c, **pipes)


def hear_ctrl_c():
    """A suite that runs in the background may have Ctrl-C ignored, and a shell cannot trap what was ignored when it began."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def begun(run, folder, file='epoch_1*.pth'):
    while run.poll() is None and not [*folder.glob(file)]:
        time.sleep(0.02)
    return run.poll() is None


def children(pid):
    return [
        int(child) for task in Path(f'/proc/{pid}/task').iterdir() for child in (task / 'children').read_text().split()
    ]


def alive(pid):
    """Not ended; one that has ended may wait to be noticed by its parent."""
    return born(pid) is not None


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.parametrize(
    'number, twice',
    [(signal.SIGTERM, False), pytest.param(signal.SIGINT, False, marks=pytest.mark.slow), (signal.SIGINT, True)],
)
def test_a_signal_to_the_whole_group_of_processes(tmp_path, number, twice):
    options = ['train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True']
    run = start(command(tmp_path, *options))
    assert begun(run, tmp_path)
    workers = children(run.pid)
    assert len(workers) >= 2
    os.killpg(run.pid, number)
    if twice:
        time.sleep(0.002)  # inside the step
        os.killpg(run.pid, number)
    said = run.communicate(timeout=120)[0]
    assert 'Traceback' not in said, said[-2000:]
    assert run.returncode == (75 if number == signal.SIGTERM else 130)
    deadline = time.monotonic() + 60  # on a busy machine
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [*filter(alive, workers)]
    if not twice:
        assert 'is saved. The same command with --resume goes on' in ' '.join(said.split())


@pytest.mark.slow
@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_the_script_of_several_processes(tmp_path, number, code):
    words = ['--work-dir', str(tmp_path), '--cfg-options', *FOREVER]
    run = start(['bash', str(ROOT / 'tools/dist_train.sh'), str(TINY), '2', *words])
    assert begun(run, tmp_path)
    run.send_signal(number)  # to the script alone
    said = run.communicate(timeout=120)[0]
    assert run.returncode == code, said[-2000:]
    assert 'Traceback' not in said, said[-2000:]
    assert 'is saved. The same command with --resume goes on' in ' '.join(said.split())


def several(folder, config=TINY, **environment):
    words = ['--work-dir', str(folder), '--cfg-options', 'train_cfg.max_epochs=2']
    return start(['bash', str(ROOT / 'tools/dist_train.sh'), str(config), '2', *words], **environment)


@pytest.mark.slow
@pytest.mark.parametrize('restarts', [0, 1])
def test_a_process_dies_while_another_waits_for_it(tmp_path, restarts):
    hooks = "default_hooks = {'checkpoint': {'every_steps': 3}, 'preemption': {'patience': 1}}"
    dies = f"custom_hooks = [{{'type': 'DiesOnce', 'file': '{tmp_path / 'died'}'}}]"
    (tmp_path / 'dies.py').write_text(f"_base_ = '{TINY}'\n{hooks}\n{dies}\n")
    run = several(tmp_path / 'a', tmp_path / 'dies.py', MAX_RESTARTS=str(restarts), PYTHONPATH=f'{TINY.parent}')
    said = run.communicate(timeout=200)[0]
    assert 'SIGTERM: no step has ended in 1' in said, said[-4000:]
    assert run.returncode == (0 if restarts else 1)
    if restarts:
        whole = several(tmp_path / 'b')
        said = whole.communicate(timeout=200)[0]
        assert whole.returncode == 0, said[-2000:]
        same(tmp_path / 'a/epoch_2.pth', tmp_path / 'b/epoch_2.pth')
    else:
        assert 'Signal 9 (SIGKILL)' in said  # the one that died, on top
        assert names(tmp_path / 'a') == ['epoch_0_step_3.pth', 'epoch_1.pth']


@pytest.mark.slow
def test_a_run_that_is_stopped_before_it_has_begun_is_not_started_again(tmp_path):
    run = several(tmp_path, MAX_RESTARTS='3')
    named = ['pgrep', '-cf', str(tmp_path)]  # processes with the folder in their command line
    while run.poll() is None and int(subprocess.run(named, capture_output=True).stdout) < 4:  # script, torchrun, both
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=200)[0]
    assert run.returncode == 75, said[-4000:]
    assert names(tmp_path) == []
