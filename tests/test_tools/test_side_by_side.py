"""Runs in processes of their own: an interrupted one goes on, another one in the folder is kept."""

import json
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools/benchmarks'
sys.path.insert(0, str(TOOLS))
from side_by_side import Run, unused_folder  # noqa: E402

sys.path.remove(str(TOOLS))  # a folder beside it has files of the same names


@pytest.fixture
def run(repository, tmp_path, monkeypatch):
    """run(seed) -> Run in one folder; its command is kept in ``run.command`` in place of being started."""

    class Process:
        def __init__(self, command, **_):
            self.command = command

        def poll(self):
            return 0

    monkeypatch.setattr('side_by_side.subprocess.Popen', Process)
    return lambda seed: Run('tiny', repository / 'configs/sfrik/digits_L3.py', tmp_path / 'run', seed)


def test_an_interrupted_run_goes_on_and_a_finished_one_is_known(run, tmp_path):
    first = run(0)
    first.start()
    (tmp_path / 'run/epoch_10.pth').write_text('half way')
    assert not run(0).finished
    again = run(0)
    again.start()
    assert '--resume' in again.process.command
    assert (tmp_path / 'run/epoch_10.pth').read_text() == 'half way'
    assert again.ended()
    assert run(0).finished
    assert not run(1).finished


@pytest.mark.parametrize('done', [True, False])
def test_another_run_in_the_folder_is_kept_beside_it(run, tmp_path, done):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/epoch_20.pth').write_text('of another seed')
    if done:
        (tmp_path / 'run/done.json').write_text(json.dumps(dict(run='other', seconds=1.0)))
    run(0).start()
    assert (tmp_path / 'run.old/epoch_20.pth').read_text() == 'of another seed'
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_an_unused_folder_is_found(tmp_path):
    assert unused_folder(tmp_path / 'a') == tmp_path / 'a'
    for name in ('a', 'a_2'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'file').touch()
    (tmp_path / 'a_3').mkdir()
    assert unused_folder(tmp_path / 'a') == tmp_path / 'a_3'
