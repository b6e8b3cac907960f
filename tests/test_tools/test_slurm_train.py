"""tools/slurm_train.sh queues a run again that has saved and ended."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def slurm(tmp_path):
    """Stand-ins: srun ends with FIRST (75) at its first call, then with 0; both commands note their words."""
    (tmp_path / 'bin').mkdir()
    first = '[ -e "$0.calls" ] && code=0 || code=${FIRST:-75}\n'
    for name, more in (('srun', first), ('scontrol', 'code=0\n')):
        path = tmp_path / 'bin' / name
        path.write_text(f'#!/usr/bin/env bash\n{more}echo "$*" >> "$0.calls"\nexit $code\n')
        path.chmod(0o755)

    def run(**environment):
        own = {
            **os.environ,
            'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}',
            'PYTHON': 'true',
            'GPUS': '2',
            **environment,
        }
        script = ['bash', str(ROOT / 'tools/slurm_train.sh'), 'part', 'job', 'config.py', '--seed', '1']
        return subprocess.run(script, env=own, capture_output=True, text=True, timeout=60)

    return run


def calls(tmp_path, name):
    return (tmp_path / 'bin' / f'{name}.calls').read_text().splitlines()


@pytest.mark.parametrize('code', [75, 138])  # saved; ended by SIGUSR1 before it had begun
def test_slurm_is_asked_again(tmp_path, slurm, code):
    assert slurm(FIRST=str(code)).returncode == 0
    first, second = calls(tmp_path, 'srun')
    assert '--signal=USR1@120' in first
    assert first.endswith('config.py --launcher slurm --seed 1')
    assert second == f'{first} --resume'


def test_a_failure_is_not_tried_again(tmp_path, slurm):
    assert slurm(FIRST='143').returncode == 143
    assert len(calls(tmp_path, 'srun')) == 1


def test_a_batch_job_is_queued_again(tmp_path, slurm):
    assert slurm(SLURM_JOB_ID='17').returncode == 75
    assert calls(tmp_path, 'scontrol') == ['requeue 17']
    assert slurm(SLURM_JOB_ID='17', SLURM_RESTART_COUNT='1').returncode == 0
    first, second = calls(tmp_path, 'srun')
    assert (first.endswith('--seed 1'), second.endswith('--seed 1 --resume')) == (True, True)


@pytest.mark.parametrize(
    'given, asked, left',
    [
        ({}, '--gres=gpu:2 --ntasks-per-node=2', '--gpus-per-task'),
        ({'GPUS_PER_TASK': '1'}, '--gpus-per-task=1 --ntasks-per-node=2', '--gres'),
        ({'SRUN_ARGS': '--gpus-per-task=1 --mem=4G'}, '--kill-on-bad-exit=1 --gpus-per-task=1 --mem=4G', '--gres'),
        ({'GPUS_PER_NODE': '0'}, '--job-name=job --ntasks=2', '--gres'),
    ],
)
def test_gpus_are_asked_for_in_one_way(tmp_path, slurm, given, asked, left):
    assert slurm(FIRST='0', **given).returncode == 0
    (call,) = calls(tmp_path, 'srun')
    assert asked in call
    assert left not in call
