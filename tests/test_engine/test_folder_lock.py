"""One run in a folder: over machines, without locks, after deaths and silences. Machines are processes with names of their own."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import time

import pytest
from mmengine.hooks import Hook
from test_run_folder import files, short

from mmkernel import owner
from mmkernel.engine import RunFolderError, folder_lock, train
from mmkernel.engine.run_folder import RunFolder
from mmkernel.registry import HOOKS
from mmkernel.writing import replacing, temporary_name

FORK = multiprocessing.get_context('fork')


def no_locks(*_):
    raise OSError(errno.ENOLCK, 'No locks available')


def another(folder, host, silent, locks, say, start=None):
    """A process of the machine ``host`` takes the folder, says so, and says when it has lost it."""
    owner.host = lambda: host
    if not locks:
        fcntl.lockf = no_locks
    run = RunFolder(folder, silent)
    if start:
        start.wait(60)
    try:
        run.take()
        say.put('taken')
        while True:
            time.sleep(0.02)
            run.check()
    except RunFolderError as error:
        say.put(str(error))


@pytest.fixture
def begin():
    """begin(folder, host, silent, locks, start) -> (process, what it says)"""
    begun = []

    def _begin(folder, host='far', silent=1.0, locks=False, start=None):
        say = FORK.Queue()
        process = FORK.Process(target=another, args=(folder, host, silent, locks, say, start))
        process.start()
        begun.append(process)
        return process, say

    yield _begin
    for process in begun:
        process.kill()
        process.join()


@pytest.fixture
def waits(monkeypatch):
    """The seconds for which something was watched; nothing happens in them."""
    asked = []
    monkeypatch.setattr(folder_lock, '_looks', lambda seconds: asked.append(seconds) or iter(()))
    return asked


def left(folder, host='far', silent=120.0, **more):
    """``run.json`` of a run that is gone, of the machine ``host``."""
    here, owner.host = owner.host, lambda: host
    try:
        about = dict(host=host, machine=owner.machine(), tag=owner.tag(), pid=os.getpid(), parent=1)
    finally:
        owner.host = here
    about |= dict(run='r', launch=None, started='then', silent=silent, token='0' * 32, **more)
    (folder / 'run.json').write_text(json.dumps(about))
    return folder / 'run.json'


@pytest.mark.parametrize('locks', [True, False])
def test_a_dead_owner_of_this_machine_is_followed_at_once(tmp_path, begin, waits, monkeypatch, locks):
    process, say = begin(tmp_path, owner.host(), 120, locks)
    assert say.get(timeout=60) == 'taken'
    if not locks:
        monkeypatch.setattr(fcntl, 'lockf', no_locks)
    with pytest.raises(RunFolderError, match=f'going on in .*process {process.pid} on {owner.host()}'):
        RunFolder(tmp_path).take()
    process.kill()
    process.join()
    run = RunFolder(tmp_path)
    run.take()
    run.release()
    assert f'process {process.pid}' in run.said
    assert waits == []
    assert sorted(os.listdir(tmp_path)) == ['.run.lock', 'run.json']


def test_a_pid_that_is_another_process_by_now_is_not_the_owner(tmp_path, monkeypatch, waits):
    monkeypatch.setattr(fcntl, 'lockf', no_locks)
    pid, tag = os.getpid(), owner.tag()
    left(tmp_path, owner.host(), tag=tag)
    with pytest.raises(RunFolderError, match=f'process {pid}'):
        RunFolder(tmp_path).take()
    left(tmp_path, owner.host(), tag=f'{tag}0')  # started at another time
    run = RunFolder(tmp_path)
    run.take()
    run.release()
    assert waits == []


@pytest.mark.parametrize('locks', [pytest.param(True, marks=pytest.mark.slow), False])
def test_another_machine_is_believed_by_its_signs_of_life(tmp_path, begin, monkeypatch, capfd, locks):
    if not locks:
        monkeypatch.setattr(fcntl, 'lockf', no_locks)
    process, say = begin(tmp_path)
    assert say.get(timeout=60) == 'taken'
    with pytest.raises(RunFolderError, match=f'process {process.pid} on far'):
        RunFolder(tmp_path, silent=30).take()  # the next sign of life is enough
    assert 'Waiting' in capfd.readouterr().err
    process.kill()
    process.join()
    run = RunFolder(tmp_path, silent=0.2)
    began = time.monotonic()
    run.take()
    assert time.monotonic() - began >= 0.25  # the owner had said 1 s
    assert f'process {process.pid} on far' in run.said
    run.release()


@pytest.mark.parametrize('age, wait', [(0, 120), (100, 30), (60, 60), (1e6, 30), (-1e6, 120)])  # seconds; clocks jump
def test_silence_is_counted_by_the_clock_of_the_file_system(tmp_path, waits, monkeypatch, age, wait):
    monkeypatch.setattr(time, 'time', lambda: 1e9)  # of this machine: another one
    mark = left(tmp_path)
    now = mark.stat().st_mtime
    os.utime(mark, (now - age, now - age))
    run = RunFolder(tmp_path)
    run.take()
    run.release()
    assert waits == [pytest.approx(wait, abs=5)]


def test_a_run_that_has_ended_is_not_waited_for(tmp_path, begin, waits):
    left(tmp_path, ended='then')
    run = RunFolder(tmp_path)
    run.take()
    run.release()
    assert (waits, run.said) == ([], '')


@pytest.mark.parametrize('new', [True, False])
@pytest.mark.parametrize('locks', [pytest.param(True, marks=pytest.mark.slow), False])
def test_of_several_at_once_one_succeeds(tmp_path, begin, new, locks):
    if not new:
        os.utime(left(tmp_path, 'nowhere', 0.8), (1, 1))
    start = FORK.Barrier(5)
    said = [begin(tmp_path, f'm{n}', 0.8, locks, start)[1] for n in range(5)]
    answers = [say.get(timeout=60) for say in said]
    assert answers.count('taken') == 1
    assert all('A run is going on' in answer for answer in answers if answer != 'taken')
    time.sleep(0.5)
    assert all(say.empty() for say in said)  # nor does one push the other out later


@pytest.mark.parametrize('known', [False, True])
def test_one_that_died_while_it_took_the_folder_is_passed_over(tmp_path, waits, known):
    """At once if it is known that its process of this machine has ended, or else when it has not moved for a while."""
    left(tmp_path)
    claim = tmp_path / f'.run.{"0" * 32}.1'
    dead = subprocess.Popen(['true'])
    dead.wait()
    claim.write_text(f'{owner.tag().partition("p")[0]}p{dead.pid}s1' if known else '')
    run = RunFolder(tmp_path, 40)
    run.take()
    run.release()
    assert waits == [pytest.approx(120, abs=5)] + [10] * (not known)
    assert not claim.exists()


def test_an_owner_that_was_stopped_notices_and_writes_nothing(tmp_path, begin):
    process, say = begin(tmp_path)
    assert say.get(timeout=60) == 'taken'
    os.kill(process.pid, signal.SIGSTOP)
    run = RunFolder(tmp_path, 1.0)
    run.take()
    os.kill(process.pid, signal.SIGCONT)
    assert 'was taken over by process' in say.get(timeout=60)
    time.sleep(0.3)  # signs of life of the new owner alone
    run.check()
    run.release()


@HOOKS.register_module()
class TakenOver(Hook):
    """Another run takes the folder in the middle of an iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            left(runner.folder.path)
            self.before.update(files(runner.folder.path))


@pytest.mark.parametrize('at, message', [(3, 'log'), (15, 'checkpoint')])
def test_a_run_ends_before_its_next_line_or_checkpoint(tmp_path, at, message):
    TakenOver.at, TakenOver.before = at, {}
    cfg = short(tmp_path, 3, custom_hooks=[dict(type='TakenOver', priority='HIGHEST')])
    if message == 'checkpoint':
        cfg.default_hooks.logger = None
    with pytest.raises(RunFolderError, match='taken over by process .* on far'):
        train(cfg)
    now = files(tmp_path)
    assert now == TakenOver.before
    assert ('epoch_1.pth' in now) == (at == 15)
    assert json.loads((tmp_path / 'run.json').read_text())['host'] == 'far'  # nor has it signed off


def test_a_checkpoint_does_not_take_its_name_after_the_folder_was_taken(tmp_path):
    run = RunFolder(tmp_path)
    run.take()

    def write():
        with replacing(tmp_path / 'epoch_1.pth', last=run.check) as half:
            half.write_text('half an hour of writing')
            left(tmp_path)

    with pytest.raises(RunFolderError, match='taken over'):
        write()
    run.release()
    assert sorted(os.listdir(tmp_path)) == ['.run.lock', 'run.json']


def test_half_files_of_the_dead_go_and_those_of_others_stay(tmp_path, monkeypatch):
    own, far, last = (temporary_name(tmp_path / 'epoch_3.pth') for _ in range(3))
    dead = own.with_name(own.name.replace(owner.tag(), owner.tag() + '0'))
    far = far.with_name(far.name.replace(owner.tag(), '01234567p1s1'))
    last = last.with_name(last.name.replace(owner.tag(), '76543210p1s1'))
    earlier, notes = tmp_path / '.epoch_2.pth.tmp', tmp_path / '.notes.tmp'
    for path in (own, dead, far, last, earlier, notes):
        path.touch()
    left(tmp_path, ended='then', tag='76543210p1s1')
    run = RunFolder(tmp_path)
    run.take()
    run.release()
    assert {path.name for path in tmp_path.glob('.*')} == {own.name, far.name, notes.name, '.run.lock'}


@pytest.mark.parametrize(
    'key, value', [('token', '../../x'), ('silent', 1e9), ('silent', 'x'), ('pid', 'x'), ('tag', 3)]
)
def test_a_record_that_no_run_wrote_is_refused(tmp_path, key, value):
    mark = left(tmp_path)
    mark.write_text(json.dumps({**json.loads(mark.read_text()), key: value}))
    with pytest.raises(RunFolderError, match='no run has left it'):
        RunFolder(tmp_path).take()


def test_a_process_whose_launcher_was_killed_is_waited_for(tmp_path, begin, monkeypatch):
    monkeypatch.setattr(owner, 'parent', lambda pid: 1)
    process, say = begin(tmp_path, owner.host(), 120, True)
    assert say.get(timeout=60) == 'taken'
    multiprocessing.get_context('fork').Process(target=lambda: (time.sleep(0.5), process.kill())).start()
    run = RunFolder(tmp_path)
    run.take()
    run.release()
