"""Every digits config trains on two processes, resumes at an epoch boundary, and its checkpoint evaluates."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_every_digits_config_on_two_processes(repository, tmp_path):
    configs = sorted(repository.glob('configs/[!_]*/digits*.py'))
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
    command = [*launcher, repository / 'tests/every_method_job.py', tmp_path, *configs]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=1500, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    for config in configs:
        result = json.loads((tmp_path / f'{config.parent.name}-{config.stem}.json').read_text())
        assert result['epochs'] == 2, config
        assert result['same'], config
        assert '0 missing' in result['loaded'] or 'match' in result['loaded'], result
        assert result['top1'] > 30, (config, result)  # chance is 10; two epochs are not to be better than no training
