"""tools/on_gpu.sh, in tiny sizes on a CPU: every part leaves its figures, with what is needed to repeat them."""

import json
import os
import re
import subprocess

import pytest


def on_gpu(repository, *words, **environment):
    command = ['bash', repository / 'tools/on_gpu.sh', *words]
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': '', 'COMMIT': 'abc1234', **environment}
    return subprocess.run([str(w) for w in command], capture_output=True, text=True, timeout=1500, env=environment)


def refused(text):
    raise ValueError(f'{text} is not JSON')


@pytest.mark.slow
@pytest.mark.parametrize(
    'parts, files',
    [('a,b', 'tests suite'), ('c', 'data losses optimizer sinkhorn knn'), ('d', 'world8'), ('e', 'cifar')],
)
def test_quick_parts_leave_their_figures(repository, tmp_path, parts, files):
    words = ('--limit', 1200, '--out', tmp_path / 'out', '--encoders', tmp_path / 'encoders')
    done = on_gpu(repository, '--quick', '--parts', parts, *words)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    found = sorted(path.name for path in (tmp_path / 'out').iterdir())
    lines = parts == 'a,b'
    assert found == sorted(f'{name}.jsonl' if lines else f'cpu_{name}.json' for name in files.split())
    for name in found:
        text = (tmp_path / 'out' / name).read_text()
        assert not re.search(r'[\s"\'=]/\w', text), name  # no absolute path
        results = [json.loads(part, parse_constant=refused) for part in (text.splitlines() if lines else [text])]
        assert {'command', 'hardware', 'versions', 'date'} <= results[0].keys()
        assert results[0]['commit'] == 'abc1234'
        if lines:
            assert results[-1]['state'] == 'over, exit status 0'
            assert results[-1]['passed'] > 0
    if parts == 'e':
        assert len(list((tmp_path / 'encoders').glob('*.safetensors'))) == len(results[0]['rows'])


def test_what_cannot_be_run_is_refused(repository, tmp_path):
    done = on_gpu(repository, '--out', tmp_path / 'out')
    assert done.returncode
    assert '--quick' in done.stderr
    for words in (('--parts', 'f'), ('--limit',), ('--faster',)):
        assert on_gpu(repository, '--quick', '--out', tmp_path / 'out', *words).returncode == 2
