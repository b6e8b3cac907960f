"""tests/record.py: a failure is in the file before the next test begins."""

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import json, pathlib

def test_first():
    assert 1 == 2, 'one is not two'

def test_second():
    lines = [json.loads(line) for line in pathlib.Path('found.jsonl').read_text().splitlines()]
    assert lines[-1]['test'].endswith('test_first') and 'one is not two' in lines[-1]['text']
"""


def test_failures_are_written_as_they_happen(tmp_path):
    (tmp_path / 'test_of_two.py').write_text(TESTS)
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parent), 'COMMIT': 'abc1234'}
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'record', '--record', 'found.jsonl', 'test_of_two.py']
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=100)
    first, *_, last = [json.loads(line) for line in (tmp_path / 'found.jsonl').read_text().splitlines()]
    assert (first['commit'], last['failed'], last['passed']) == ('abc1234', 1, 1)
    assert str(tmp_path) not in (tmp_path / 'found.jsonl').read_text()
