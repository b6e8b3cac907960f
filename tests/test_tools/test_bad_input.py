"""What a person can get wrong on the command line of a benchmark ends with one line that says what to do."""

import runpy
import sys
from pathlib import Path

import pytest

from mmkernel.cli import main

TOOLS = Path(__file__).parents[2] / 'tools/benchmarks'


@pytest.fixture
def said(config, tmp_path, capsys):
    def run(command, *words):
        standard = {'--device': 'cpu', '--cache': tmp_path / 'features', '--out': tmp_path / 'x.json'}
        standard = [word for pair in standard.items() if pair[0] not in words for word in pair]
        with pytest.raises(SystemExit) as stopped:
            main([command, str(config), 'none', '--no-raw', *map(str, (*standard, *words))])
        assert stopped.value.code not in (0, None)
        text = capsys.readouterr().err + (stopped.value.code if isinstance(stopped.value.code, str) else '')
        assert 'Traceback' not in text
        return text.strip().splitlines()[-1] if text else stopped.value.code

    return run


@pytest.mark.parametrize(
    ('words', 'answer'),
    [
        (('--k', 0), 'k=0; expected one or more finite whole numbers > 0'),
        (('--temperature', 0), 'temperature=0.0; expected one or more finite numbers > 0'),
        (('--device', 'gpu'), "mmkernel knn: device 'gpu' cannot be used here; there is cpu"),
        (('--cfg-options', 'evaluation=None'), "the config has no 'evaluation' part; expected evaluation=dict("),
        (('--cfg-options', 'evaluation.test.type=Digit'), "type 'Digit' is not registered"),
        (('--cfg-options', 'evaluation.test.split=x'), "Digits.split is 'train' or 'test', got 'x'"),
    ],
)
def test_knn(said, words, answer):
    assert answer in said('knn', *words)


def test_result_and_cache_in_places_that_are_none(said, tmp_path):
    (tmp_path / 'file').write_text('')
    assert 'cannot be written (it is a folder)' in said('knn', '--out', tmp_path)
    assert not list(tmp_path.parent.glob('*.partial'))
    assert 'name another folder that can be written' in said('knn', '--cache', tmp_path / 'file')


@pytest.mark.parametrize(
    ('words', 'answer'),
    [
        (('--seeds', 0, 0), 'seeds=0, 0; expected one or more different ones'),
        (('--lrs', -1), 'lrs=-1.0; expected one or more finite numbers > 0'),
        (('--epochs', 0), 'epochs=0; expected one or more finite whole numbers > 0'),
        (('--batch-size', 0), 'batch_size=0'),
    ],
)
def test_linear(said, words, answer):
    assert answer in said('linear', '--protocol', 'sweep', *words)


def test_warnings_are_one_line_too(config, tmp_path, capsys):
    words = ('--no-raw', '--no-cache', '--device', 'cpu', '--out', tmp_path / 'x.json', '--k', 1000)
    main(['knn', str(config), 'none', *map(str, words)])
    assert 'warning: k=1000 exceeds the 360 images of the bank' in capsys.readouterr().err.splitlines()[0]


def test_ctrl_c_ends_quietly(said, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmkernel.evaluation.features.stored', stop)
    assert said('knn') == 130


@pytest.mark.parametrize(
    ('script', 'command'),
    [(name, name) for name in ('knn', 'linear', 'classify', 'transfer', 'transformation')]
    + [('semi_supervised', 'semi'), ('voc07_svm', 'svm')],
)
def test_a_script_is_the_command(script, command, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [script, '--help'])
    runpy.run_path(str(TOOLS / f'{script}.py'), run_name='__main__')
    assert f'Usage: mmkernel {command} ' in capsys.readouterr().out


def test_where_it_came_from_is_shown_on_demand(config, monkeypatch):
    monkeypatch.setenv('MMKERNEL_TRACEBACK', '1')
    with pytest.raises(ValueError, match='k='):
        main(['knn', str(config), 'none', '--no-raw', '--no-cache', '--k', '0'])
