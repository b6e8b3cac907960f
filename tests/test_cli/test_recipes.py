"""mmkernel config list | show | diff."""

import json

import pytest

from mmkernel.cli import main
from mmkernel.cli.recipes import names_of_configs


def test_list(capsys, repository):
    main(['config', 'list', 'KERNELS', '--json'])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {f'kernels/{path.stem}' for path in (repository / 'configs/kernels').glob('*.py')}
    assert found['kernels/digits_rbf'].startswith('phi(t) = exp(-2 ||u - v||^2)')
    main(['config', 'list', '*rbf*'])
    text = capsys.readouterr().out
    assert 'kernels/digits_rbf' in text
    assert 'sfrik' not in text
    assert all(path.is_file() for path in names_of_configs().values())


def test_show_is_whole_and_reads_back(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv('COLUMNS', '200')
    main(['config', 'show', 'kernels/digits_rbf', '--cfg-options', 'train_cfg.max_epochs=3'])
    text = capsys.readouterr().out
    assert 'max_epochs=3' in text
    assert '_base_' not in text
    (tmp_path / 'whole.py').write_text(text)
    main(['config', 'diff', 'kernels/digits_rbf', str(tmp_path / 'whole.py'), '--json'])
    assert json.loads(capsys.readouterr().out) == [dict(key='train_cfg.max_epochs', old='20', new='3')]
    main(['config', 'show', 'kernels/digits_rbf', '--key', 'model.head.kernel', '--json'])
    assert json.loads(capsys.readouterr().out) == dict(kernel=dict(type='RBFKernel', scale=2.0))


def test_diff(capsys, tmp_path):
    main(['config', 'diff', 'sfrik/digits_L2', 'configs/sfrik/digits_L3.py', '--json'])
    found = json.loads(capsys.readouterr().out)
    assert found == [dict(key='model.head.kernel.weights', old='[1.0, 40.0]', new='[1.0, 40.0, 40.0]')]
    main(['config', 'diff', 'sfrik/digits_L3', 'mmkernel::sfrik/digits_L3.py'])
    assert 'The two mean the same.' in capsys.readouterr().out
    mine = tmp_path / 'mine.py'
    mine.write_text("_base_ = 'mmkernel::sfrik/digits_L3.py'\ntrain_cfg = dict(max_epochs=7)\n")
    main(['config', 'diff', str(mine), '--json'])
    assert json.loads(capsys.readouterr().out) == [dict(key='train_cfg.max_epochs', old='20', new='7')]
    (tmp_path / 'config.py').write_text(f'# Recipe: configs/sfrik/digits_L3.py\n{mine.read_text()}')
    main(['config', 'diff', str(tmp_path)])  # the folder of a run
    text = capsys.readouterr().out
    assert 'digits_L3' in text
    assert text.count('train_cfg') == 1


@pytest.mark.parametrize('words, said', [
    (['show', 'sfrk/digits_L3'], "no config, run or checkpoint 'sfrk/digits_L3'. Did you mean 'sfrik/digits_L3'"),
    (['show', 'nowhere.py'], "There is no config 'nowhere.py'"),
    (['show', 'sfrik/digits_L3', '--key', 'modl'], "has no 'modl'. At the top it has: train_dataloader"),
    (['list', 'nothing'], "no config matches 'nothing'"),
    (['diff', '_base_/runtime'], 'has no _base_ to compare it with; name a second'),
    (['show', 'weights.pth'], "no config, run or checkpoint 'weights.pth'"),
])  # fmt: skip
def test_mistakes(words, said):
    with pytest.raises(SystemExit) as stop:
        main(['config', *words])
    assert said in str(stop.value)
    assert '\n' not in str(stop.value)
