"""Launchers: the environment of SLURM, and two processes through the script."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from mmkernel.engine import init_processes, load_config, read_checkpoint, train
from mmkernel.engine.launch import _meeting_place, slurm_environment

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
    assert 'epoch_2.pth: 2 of 4 epochs done' in done[0].stdout + done[0].stderr
    assert done[1].returncode == 1  # the same command again is no restart
    assert 'RunFolderError' in done[1].stderr
