"""Killing a launcher ends its processes, whoever of them is killed; the next start goes on."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from test_position import ROOT, TINY
from test_preemption import alive, begun, children, names, start

from mmkernel.engine import launcher_watch
from mmkernel.owner import born

FORK = multiprocessing.get_context('fork')
STATED = 15.0  # seconds; docs/resume.md
pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def below(pid):
    """All that a process has started, directly or not."""
    found = children(pid)
    return found + [each for child in found for each in below(child)]


def launched(folder, epochs, **environment):
    words = [
        '--work-dir',
        str(folder),
        '--cfg-options',
        f'train_cfg.max_epochs={epochs}',
        'train_dataloader.num_workers=1',
    ]
    words += ['train_dataloader.persistent_workers=True', 'default_hooks.checkpoint.max_keep=2']
    return start(['bash', str(ROOT / 'tools/dist_train.sh'), str(TINY), '2', *words], **environment)


@pytest.mark.slow
@pytest.mark.parametrize('killed, restarts', [('script', 2), ('torchrun', 0)])
def test_all_are_gone_within_the_stated_time_and_a_start_goes_on(tmp_path, killed, restarts):
    run = launched(tmp_path, 2000, MAX_RESTARTS=str(restarts))
    assert begun(run, tmp_path), run.communicate()[0][-2000:]
    there = [run.pid, *below(run.pid)]
    assert len(there) >= 6  # script, torchrun, two processes with a worker each
    (torchrun,) = (pid for pid in children(run.pid) if below(pid))
    os.kill(run.pid if killed == 'script' else torchrun, signal.SIGKILL)
    deadline = time.monotonic() + STATED
    while any(map(alive, there)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [*filter(alive, there)]
    said = run.communicate(timeout=60)[0]
    assert 'has died: this process ends' in said, said[-2000:]
    assert ('is saved' in ' '.join(said.split())) == (killed == 'script')
    done = max(int(name.split('_')[1].removesuffix('.pth')) for name in names(tmp_path))
    words = ['--work-dir', str(tmp_path), '--resume', '--cfg-options', f'train_cfg.max_epochs={done + 1}']
    again = start([sys.executable, str(ROOT / 'tools/train.py'), str(TINY), *words])
    said = again.communicate(timeout=200)[0]
    assert again.returncode == 0, said[-2000:]
    assert f'epoch_{done + 1}.pth' in names(tmp_path)
    assert not [*tmp_path.glob('.epoch*')]


def watched(send, deaf):
    """A process that watches its launcher; its pid is sent."""
    launcher_watch.LOOKS, launcher_watch.GRACE = 0.05, 0.5
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else signal.SIG_DFL)
        launcher_watch.watch_launcher()
        send.send(os.getpid())
    time.sleep(60)


@pytest.mark.parametrize('deaf', [False, True])
@pytest.mark.parametrize('killed', ['parent', 'script'])
def test_a_process_ends_with_its_parent_or_script(monkeypatch, killed, deaf):
    script = subprocess.Popen(['sleep', '60'])
    if killed == 'script':
        monkeypatch.setenv(launcher_watch.SCRIPT, str(script.pid))
    receive, send = FORK.Pipe(duplex=False)
    parent = FORK.Process(target=watched, args=(send, deaf))
    parent.start()
    pid = receive.recv()
    (parent if killed == 'parent' else script).kill()
    deadline = time.monotonic() + 30
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert born(pid) is None
    for process in (parent, script):
        process.kill()
    parent.join()
    script.wait()


def begins_late(script):
    os.environ[launcher_watch.SCRIPT] = str(script)
    launcher_watch.watch_launcher()


def test_a_process_that_begins_after_the_death_of_its_script_ends_at_once():
    script = subprocess.Popen(['true'])
    script.wait()
    process = FORK.Process(target=begins_late, args=(script.pid,))
    process.start()
    process.join(60)
    assert process.exitcode == 143
