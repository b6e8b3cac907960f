"""The probes as a person would run them, in this process; scripts of tools/."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest
import torch

from mmkernel.cli import main

TOOLS = Path(__file__).parents[2] / 'tools'


def run(*words):
    main([str(word) for word in words])


def test_knn_of_a_checkpoint(config, tmp_path, capsys):
    from mmkernel.engine import load_config
    from mmkernel.evaluation import untrained_encoder

    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=untrained_encoder(load_config(config), seed=5).state_dict()), weights)
    words = (
        config,
        weights,
        '--k',
        1,
        20,
        '--out',
        tmp_path / 'out' / 'knn.json',
        '--cache',
        tmp_path / 'features',
        '--device',
        'cpu',
    )
    run('knn', *words)
    written = json.loads((tmp_path / 'out' / 'knn.json').read_text())
    assert [row['name'] for row in written['rows']] == ['raw pixels', 'untrained encoder', 'trained encoder']
    assert written['rows'][2]['scores']['1']['top1'] == 100  # train and test are the same images here
    assert written['checkpoint'] == str(weights)
    assert 'trained encoder' in capsys.readouterr().out
    kept = sorted((tmp_path / 'features').iterdir())
    assert len(kept) == 3  # raw pixels, untrained, trained: train and test are the same images here
    linear = ('--protocol', 'sgd', '--epochs', 1, '--out', tmp_path / 'linear.json')
    run('linear', *words[:2], *linear, *words[-4:])
    assert sorted((tmp_path / 'features').iterdir()) == kept


@pytest.mark.parametrize('checkpoint', [(), ('none',)])
def test_linear_without_a_checkpoint(config, tmp_path, checkpoint):
    words = (config, *checkpoint, '--epochs', 2, '--out', tmp_path / 'linear.json', '--device', 'cpu', '--no-cache')
    run('linear', *words, '--cfg-options', 'evaluation.batch_size=90')
    written = json.loads((tmp_path / 'linear.json').read_text())
    assert [row['name'] for row in written['rows']] == ['raw pixels', 'untrained encoder']
    assert set(written['rows'][0]['scores']) == {'best of 198 heads', 'SGD, 2 epochs', 'L-BFGS, l2, C = 100'}
    assert (written['checkpoint'], written['status']) == (None, 'measured by us')


@pytest.mark.parametrize(
    'scores, holds',
    [
        ((65, 45, 55, 78, 79), True),
        ((65, 45, 55, 78, 75), True),
        ((65, 45, 55, 78, 74.9), False),
        ((65, 45, 65, 78, 79), False),
        ((65, 45, 55, 50, 79), False),
    ],
)
def test_verdict_of_the_quickstart(scores, holds):
    spec = importlib.util.spec_from_file_location('quickstart', TOOLS / 'quickstart.py')
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    names = ('raw pixels', 'untrained encoder', 'L = 1', 'L = 2', 'L = 3')
    rows = [dict(name=n, scores=dict(knn={'1': dict(mean=s)})) for n, s in zip(names, scores, strict=True)]
    assert quickstart.verdict(rows) is holds
    assert quickstart.verdict(rows[:3]) is None


@pytest.mark.parametrize('script', sorted(path.name for path in TOOLS.glob('*.sh')))
def test_shell_scripts_parse(script):
    assert subprocess.run(['bash', '-n', str(TOOLS / script)], capture_output=True).returncode == 0


def test_knn_of_a_file_that_holds_an_encoder_alone(config, tmp_path, capsys):
    from mmkernel.engine import load_config
    from mmkernel.evaluation import untrained_encoder

    backbone = untrained_encoder(load_config(config), seed=5).backbone
    weights = tmp_path / 'backbone.pth'
    torch.save({f'module.encoder_q.{key}': value for key, value in backbone.state_dict().items()}, weights)
    words = (config, weights, '--k', 1, '--out', tmp_path / 'knn.json', '--no-cache', '--no-raw', '--device', 'cpu')
    run('knn', *words)
    rows = json.loads((tmp_path / 'knn.json').read_text())['rows']
    assert [row['name'] for row in rows] == ['untrained encoder', 'trained encoder']
    assert '0 missing, 0 unexpected' in capsys.readouterr().out.replace('\n', ' ')
