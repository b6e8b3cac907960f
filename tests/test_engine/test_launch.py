"""Launchers: the environment of SLURM, and two processes through the script."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from mmkernel.engine import ConfigError, Runner, init_processes, load_config, read_checkpoint, train
from mmkernel.engine.launch import WORKSPACE, _meeting_place, set_numerics, slurm_environment

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).parent / 'tiny_config.py'


@pytest.mark.parametrize(
    'nodes, first',
    [('node7', 'node7'), ('a,b', 'a'), ('gpu[03-05,9],x1', 'gpu03'), ('r[1,3]n2', 'r1n2'), ('c-1-[7]', 'c-1-7')],
)
def test_the_first_host_is_the_meeting_place(nodes, first):
    given = dict(SLURM_PROCID='0', SLURM_NTASKS='2', SLURM_NODELIST=nodes)
    assert slurm_environment(given)['MASTER_ADDR'] == first


def test_slurm_environment():
    given = dict(SLURM_PROCID='5', SLURM_NTASKS='8', SLURM_NODELIST='n[2-3]', SLURM_LOCALID='1', SLURM_JOB_ID='123456')
    assert slurm_environment(given) == dict(
        RANK='5', WORLD_SIZE='8', LOCAL_RANK='1', MASTER_ADDR='n2', MASTER_PORT=str(20000 + 123456 % 20000)
    )
    assert slurm_environment({**given, 'MASTER_ADDR': 'h', 'MASTER_PORT': '7'})['MASTER_ADDR'] == 'h'
    with pytest.raises(ValueError, match='SLURM_PROCID.*srun'):
        slurm_environment({})


def test_a_wrong_launcher_is_explained(monkeypatch):
    with pytest.raises(ValueError, match='none, pytorch, slurm'):
        init_processes('mpirun')
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match='RANK, LOCAL_RANK.*dist_train.sh'):
        init_processes('pytorch')
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='--launcher pytorch'):
        init_processes('none')


def launch(script, *arguments, **environment):
    own = {k: v for k, v in os.environ.items() if k not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'PORT')}
    # PYTHON: the interpreter of the tests; no GPU: the test is about gloo
    own = {**own, 'PYTHON': sys.executable, 'CUDA_VISIBLE_DEVICES': '', **environment}
    command = ['bash', str(ROOT / 'tools' / script), *map(str, arguments)]
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=240)


@pytest.fixture
def srun(tmp_path):
    """A stand-in for srun that starts two tasks with the environment that a cluster would give them."""
    path = tmp_path / 'bin' / 'srun'
    path.parent.mkdir()
    path.write_text(
        '#!/usr/bin/env bash\nwhile [[ $1 == -* ]]; do [[ $1 == -p ]] && shift; shift; done\n'
        'export SLURM_NTASKS=2 SLURM_NODELIST=localhost SLURM_JOB_ID=$$\n'
        'SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & SLURM_PROCID=0 SLURM_LOCALID=0 "$@"; first=$?; wait $! && exit $first\n'
    )
    path.chmod(0o755)
    return dict(PATH=f'{path.parent}:{os.environ["PATH"]}', GPUS='2', GPUS_PER_NODE='0')


def test_two_processes_equal_one(tmp_path, srun):
    """One epoch under SLURM, resumed for another with the local script: the weights of one process on the union batches.

    (Without batch norm and dropout, which no two processes share on a CPU.)
    """
    options = ['model.norm=False', 'train_dataloader.batch_size=4', 'default_hooks.checkpoint.max_keep=4']
    arguments = [CONFIG, '--work-dir', tmp_path / 'two', '--cfg-options', *options]
    first = launch('slurm_train.sh', 'debug', 'job', *arguments, **srun)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    for epoch in (2, 3, 4):
        (tmp_path / 'two' / f'epoch_{epoch}.pth').unlink()
    second = launch('dist_train.sh', CONFIG, 2, *arguments[1:], '--resume')
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    for text in ('Effective batch 8', 'Resumed from', 'epoch_1.pth'):
        assert text in second.stdout + second.stderr
    checkpoint = read_checkpoint(tmp_path / 'two' / 'epoch_4.pth')
    assert checkpoint['meta']['world_size'] == len(checkpoint['random_states']) == 2
    cfg = load_config(CONFIG, {'model.norm': False, 'log_level': 'ERROR'})
    cfg.work_dir = str(tmp_path / 'one')
    torch.testing.assert_close(checkpoint['state_dict'], dict(train(cfg).model.state_dict()), rtol=1e-4, atol=1e-6)


def test_processes_started_again_do_not_find_those_that_ended(monkeypatch):
    """Up to the third start; all of one start find each other."""
    server = dist.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)  # as the agent of torchrun holds it
    given = dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(server.port), GROUP_WORLD_SIZE='1')
    for name, value in dict(given, TORCHELASTIC_USE_AGENT_STORE='True').items():
        monkeypatch.setenv(name, value)
    for restart in ('1', '2'):
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', restart)
        places = [_meeting_place(timedelta(seconds=30)) for _ in range(2)]
        assert not places[0]['store'].check(['address'])
        places[0]['store'].set('address', 'here')
        assert places[1]['store'].get('address') == b'here'
        assert (places[0]['rank'], places[0]['world_size']) == (0, 1)
    monkeypatch.setenv('GROUP_WORLD_SIZE', '2')
    assert _meeting_place(timedelta(seconds=30)) == {}


CRASH = """
import os
import time

from mmengine.hooks import Hook
from mmkernel.registry import HOOKS


@HOOKS.register_module()
class CrashOnce(Hook):
    def before_train_epoch(self, runner):
        if runner.epoch == 2 and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and os.environ['RANK'] == '0':
            os._exit(3)


if os.environ.get('TORCHELASTIC_RESTART_COUNT') == '1' and os.environ['RANK'] == '0':
    time.sleep(5)  # the other is early: all that it could find of this process is what the first attempt has left
"""


@pytest.mark.slow
def test_processes_that_torchrun_starts_again_go_on(tmp_path):
    (tmp_path / 'crash_once.py').write_text(CRASH)
    (tmp_path / 'crash.py').write_text(
        f"_base_ = [{str(CONFIG)!r}]\ncustom_imports = dict(imports=['tiny_training', 'crash_once'])\n"
        f"import_folders = [{str(CONFIG.parent)!r}]\ncustom_hooks = [dict(type='CrashOnce')]\n"
    )
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--max-restarts',
        '1',
        '--nproc_per_node',
        '2',
    ]
    arguments = [ROOT / 'tools/train.py', tmp_path / 'crash.py', '--launcher', 'pytorch', '--work-dir', tmp_path / 'w']
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
    done = [
        subprocess.run(
            [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        for _ in range(2)
    ]
    assert done[0].returncode == 0, done[0].stderr[-3000:]
    assert 'epoch_2.pth: 2 of 4 epochs done' in ' '.join((done[0].stdout + done[0].stderr).split())
    assert done[1].returncode == 1  # the same command again is no restart
    assert 'RunFolderError' in done[1].stderr


class Gpus:
    """A machine: the ``uuids`` that a process sees, and the one that it has taken."""

    def __init__(self, monkeypatch, uuids):
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: len(uuids))
        monkeypatch.setattr(torch.cuda, 'set_device', lambda index: setattr(self, 'taken', uuids[index]))
        monkeypatch.setattr(torch.cuda, 'current_device', lambda: self.taken)
        monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda taken: SimpleNamespace(uuid=taken))


@pytest.fixture
def as_process(monkeypatch):
    """as_process(local_rank, uuids): the GPU that this process takes, as one of several that share a store."""
    store = dist.HashStore()
    monkeypatch.setattr(dist, 'init_process_group', lambda *_, **__: None)
    monkeypatch.setattr('mmkernel.engine.launch._get_default_store', lambda: store)

    def start(local_rank, uuids, pid=None):
        given = dict(RANK=local_rank, LOCAL_RANK=local_rank, WORLD_SIZE=4, MASTER_ADDR='localhost', MASTER_PORT=1)
        for name, value in given.items():
            monkeypatch.setenv(name, str(value))
        # processes that run: this one, its parent, and so on
        monkeypatch.setattr(os, 'getpid', lambda: pid or [process, os.getppid()][local_rank % 2])
        gpus = Gpus(monkeypatch, uuids)
        init_processes('pytorch')
        return gpus.taken

    process = os.getpid()
    return start


@pytest.mark.parametrize(
    'seen, taken',
    [
        ((['a', 'b'], ['a', 'b']), ['a', 'b']),  # the usual: every process sees all
        ((['a'], ['b']), ['a', 'b']),  # srun --gpus-per-task=1, or a mask for each process
        ((['a', 'b'], ['c', 'd']), ['a', 'd']),
    ],
)
def test_each_process_has_a_gpu(as_process, seen, taken):
    assert [as_process(rank, uuids) for rank, uuids in enumerate(seen)] == taken


def test_more_processes_than_gpus(as_process):
    as_process(0, ['a'])
    with pytest.raises(
        ValueError, match='Processes 0 and 1 of this machine would share one GPU: each sees 1.*at most 1'
    ):
        as_process(1, ['a'])


def test_a_gpu_of_a_process_that_has_ended_is_free(as_process):
    ended = subprocess.Popen(['true'])
    ended.wait()
    assert [as_process(0, ['a'], ended.pid), as_process(0, ['a'])] == ['a', 'a']


@pytest.fixture
def numerics(monkeypatch):
    """Puts back what a test sets."""
    monkeypatch.delenv(WORKSPACE, raising=False)
    monkeypatch.setattr('mmkernel.engine.launch._workspace_is_ours', False)
    before = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, benchmark=False):
        yield
    torch.set_float32_matmul_precision(before[0])
    torch.use_deterministic_algorithms(before[1])
    os.environ.pop(WORKSPACE, None)


@pytest.mark.parametrize('tf32, products, convolutions', [(True, 'high', True), (False, 'highest', False)])
def test_tf32_is_set_in_one_place(numerics, tf32, products, convolutions):
    set_numerics(dict(tf32=tf32))
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (products, convolutions)
    assert torch.backends.cudnn.benchmark
    set_numerics({})  # a second run in one process
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ('highest', True)


def switches():
    cudnn, inductor = torch.backends.cudnn, torch._inductor.config
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return *deterministic, cudnn.deterministic, cudnn.benchmark, inductor.deterministic, os.environ.get(WORKSPACE)


def test_deterministic_sets_all_that_it_needs_and_a_later_run_takes_it_back(tmp_path, numerics):
    """After the Runner is built: mmengine seeds, and sets some of it again."""
    cfg = load_config(CONFIG, {'compile': True, 'log_level': 'ERROR'})
    found = []
    for i, deterministic in enumerate([False, True, False, True]):
        cfg.work_dir, cfg.randomness.deterministic = str(tmp_path / str(i)), deterministic
        Runner.from_cfg(cfg)
        found.append(switches())
    off, on = (False, False, False, True, False, None), (True, False, True, False, True, ':4096:8')
    assert found == [off, on, off, on]


def test_what_the_user_has_set_stays(numerics, monkeypatch):
    monkeypatch.setenv(WORKSPACE, ':16:8')
    for deterministic in (True, False):
        set_numerics(dict(randomness=dict(deterministic=deterministic)))
        assert os.environ[WORKSPACE] == ':16:8'


def test_an_environment_that_does_not_repeat_is_refused(tmp_path, numerics, monkeypatch):
    monkeypatch.setenv(WORKSPACE, ':0:0')
    cfg = load_config(CONFIG, {'randomness.deterministic': True})
    cfg.work_dir = str(tmp_path)
    with pytest.raises(ConfigError, match='CUBLAS_WORKSPACE_CONFIG=:0:0.*unset it, or set it to :4096:8 or :16:8'):
        Runner.from_cfg(cfg)
    set_numerics({})


def test_too_late_is_said(numerics, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    with pytest.warns(UserWarning, match='has started in this process without'):
        set_numerics(dict(randomness=dict(deterministic=True)))
