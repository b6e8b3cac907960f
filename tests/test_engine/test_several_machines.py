"""Two machines: one is lost, the other ends and says so, and both go on; a process that is lost comes back under torchrun."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from multiprocess import run_processes
from test_position import ROOT, TINY, config, same
from test_preemption import children

from mmkernel.engine import train
from mmkernel.engine.launch import lost_process

OPTIONS = {'train_cfg.max_epochs': 30, 'default_hooks.checkpoint.every_steps': 3}
LAST = 'epoch_30.pth'


@pytest.mark.parametrize(
    'error, said',
    [
        (RuntimeError('[/a/gloo/transport/tcp/pair.cc:5] Read error [127.0.0.1]:7: reset by peer. GLHF'), 'reset by peer'),
        (dist.DistNetworkError('Connection was likely closed. Did the server crash?'), 'likely closed'),
        (RuntimeError('The sizes of tensors must match.'), None),
    ],
)  # fmt: skip
def test_the_words_of_a_process_that_has_lost_another(error, said):
    text = lost_process(error)
    assert text is None if said is None else said in text
    assert said is None or 'Start all again with --resume' in text


class Machine:
    """A start of tools/dist_train.sh on one of two machines, with a process; its words go to a file."""

    def __init__(self, node, folder, port, *words, prefix=(), path=TINY, timeout=120.0, patience=120.0, **environment):
        self.file = Path(f'{folder}_{node}.txt')
        clocks = {'env_cfg.dist_cfg.timeout': timeout, 'default_hooks.pulse.patience': patience}
        options = [f'{key}={value}' for key, value in {**OPTIONS, **clocks}.items()]
        command = [
            'bash',
            ROOT / 'tools/dist_train.sh',
            path,
            '1',
            '--work-dir',
            folder,
            *words,
            '--cfg-options',
            *options,
        ]
        own = dict(
            PYTHON=sys.executable, PYTHONPATH=str(TINY.parent), CUDA_VISIBLE_DEVICES='', NNODES='2', NODE_RANK=str(node),
            MASTER_ADDR='127.0.0.1', LOCAL_ADDR=f'127.0.0.{node + 1}', PORT=str(port),
        )  # fmt: skip
        with self.file.open('a') as file:
            self.run = subprocess.Popen(
                [*prefix, *map(str, command)], env={**os.environ, **own, **environment}, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def lose(self):
        """All its processes are killed, the last first."""
        for pid in reversed(descendants(self.run.pid)):
            os.kill(pid, signal.SIGKILL)
        self.run.wait()

    def end(self, timeout=150):
        try:
            return self.run.wait(timeout)
        except subprocess.TimeoutExpired:
            self.lose()
            raise

    def said(self):
        return self.file.read_text()


def descendants(pid):
    return [pid, *(below for child in children(pid) for below in descendants(child))]


def free_port():
    with socket.socket() as free:
        free.bind(('', 0))
        return free.getsockname()[1]


def both(folder, *words, **options):
    port = free_port()
    return [Machine(node, folder, port, *words, **options) for node in (0, 1)]


def begun(machines, folder):
    while not [*folder.glob('epoch_[1-9]*.pth')]:
        assert all(machine.run.poll() is None for machine in machines), machines[0].said()[-3000:]
        time.sleep(0.02)


def in_each(rank, world_size, folder):
    cfg = config(TINY, folder, launcher='pytorch', log_level='ERROR', **OPTIONS)
    train(cfg)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    run_processes(in_each, 2, str(folder))
    return folder / LAST


def went_on(machines, folder, whole):
    for machine in machines:
        assert machine.end() == 0, machine.said()[-3000:]
    same(folder / LAST, whole)
    assert not [*folder.glob('*.old'), *folder.glob('.*.tmp')]
    assert not (folder / 'config.py.old').exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.parametrize('lost', [0, 1])
def test_one_of_two_agents_is_lost(tmp_path, whole, lost):
    folder = tmp_path / 'run'
    machines = both(folder)
    begun(machines, folder)
    machines[lost].lose()
    start, other = time.monotonic(), machines[1 - lost]
    assert other.end(timeout=60) == 1  # docs/reliability.md: 30 seconds, on a machine that does nothing else
    said = other.said()
    assert re.search('(Lost|Silent)ProcessError: ', said.split('Traceback')[0]), said[-3000:]  # then torchrun's own
    assert time.monotonic() - start < 60
    went_on(both(folder, '--resume'), folder, whole)
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 2  # logs: process 0 of each start


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_a_process_that_is_lost_comes_back(tmp_path, whole):
    """That of the second machine is killed; the first one waits for it as in a collective of NCCL, and is started anew."""
    hooks = "default_hooks = {'checkpoint': {'every_steps': 3}, 'preemption': {'patience': 1}}"
    dies = f"custom_hooks = [{{'type': 'DiesOnce', 'file': '{tmp_path / 'died'}'}}]"
    (tmp_path / 'dies.py').write_text(f"_base_ = '{TINY}'\n{hooks}\n{dies}\n")
    machines = both(tmp_path / 'run', '--resume', path=tmp_path / 'dies.py', MAX_RESTARTS='1')
    went_on(machines, tmp_path / 'run', whole)
    assert (tmp_path / 'died').exists()


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them: for each what enters it, and an environment."""
    made, cable = [], 'ip link add left type veth peer name right'
    try:
        made += [holder('unshare', '-Urn')]
        inside = enter(made[0])
        made += [holder(*inside, 'unshare', '-n')]
        orders = [(inside, f'{cable} && ip link set right netns {made[1].pid}')]
        for host, (name, process) in enumerate(zip(('left', 'right'), made, strict=True)):
            words = f'ip link set lo up && ip addr add 10.77.0.{host + 1}/24 dev {name} && ip link set {name} up'
            orders.append((enter(process), words))
        for prefix, words in orders:
            done = subprocess.run([*prefix, 'sh', '-c', words], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f'network namespaces are not allowed here: {words}: {done.stderr.strip()}')
        yield [(enter(process), name) for name, process in zip(('left', 'right'), made, strict=True)]
    finally:
        for process in reversed(made):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def holder(*command):
    """A process that keeps a namespace open; skip where that is not allowed."""
    try:
        process = subprocess.Popen(
            [*command, 'sh', '-c', 'echo here; exec sleep 600'], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        pytest.skip(f'network namespaces need unshare, nsenter and ip: {error}')
    if process.stdout.readline() != 'here\n':
        pytest.skip(f'network namespaces are not allowed here: {process.communicate()[1].strip()}')
    return process


def enter(process):
    return ['nsenter', '-t', str(process.pid), '-U', '-n', '--preserve-credentials']


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='network namespaces are of Linux')
@pytest.mark.parametrize('clocks', [dict(timeout=8.0), dict(timeout=600.0, patience=15.0)], ids=['timeout', 'patience'])
def test_two_hosts_lose_the_cable_between_them(tmp_path, whole, hosts, clocks):
    """Nothing says that the other is gone: after ``dist_cfg.timeout`` or the pulse's patience both end; then they go on."""
    folder, port = tmp_path / 'run', free_port()

    def start(*words):
        return [
            Machine(node, folder, port, *words, prefix=prefix, **clocks, MASTER_ADDR='10.77.0.1', GLOO_SOCKET_IFNAME=name)
            for node, (prefix, name) in enumerate(hosts)
        ]  # fmt: skip

    machines = start()
    begun(machines, folder)
    subprocess.run([*hosts[0][0], 'ip', 'link', 'set', 'left', 'down'], check=True)
    limit = time.monotonic() + 90  # after at most two beats of 5 s and ``patience``; then torchrun's own 30 s
    for machine in machines:
        assert machine.end(timeout=limit - time.monotonic()) == 1
        assert re.search('(Lost|Silent)ProcessError: ', machine.said().split('Traceback')[0]), machine.said()[-3000:]
    subprocess.run([*hosts[0][0], 'ip', 'link', 'set', 'left', 'up'], check=True)
    went_on(start('--resume'), folder, whole)
