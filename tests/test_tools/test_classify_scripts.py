"""``mmkernel classify`` and ``semi`` as a person would run them, in this process."""

import json
from pathlib import Path

import pytest
from photographs import write_voc

from mmkernel.cli import main
from mmkernel.engine import load_config, write_checkpoint
from mmkernel.evaluation import untrained_encoder

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/sfrik/digits_L3.py'
SHORT = ('--cfg-options', 'log_level=ERROR', 'train_dataloader.dataset.source.split=test')


def run(*words):
    main([str(word) for word in words])


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('run') / 'epoch_20.pth'
    write_checkpoint(dict(state_dict=untrained_encoder(load_config(CONFIG)).state_dict()), path)
    return path


def test_linear_protocol_beside_the_untrained_encoder(checkpoint, tmp_path, capsys):
    words = (CONFIG, checkpoint, '--protocol', ROOT / 'configs/benchmarks/linear_digits.py', '--untrained')
    run('classify', *words, '--out', tmp_path, *SHORT, 'train_cfg.max_epochs=1')
    written = json.loads((tmp_path / 'classify.json').read_text())
    assert [row['name'] for row in written['rows']] == ['untrained encoder', 'trained encoder']
    assert set(written['rows'][1]['scores']) == {'last epoch', 'best epoch'}
    assert written['rows'][1]['history'][0]['epoch'] == 1
    assert (tmp_path / 'trained/epoch_1.pth').is_file()
    assert 'trained encoder' in capsys.readouterr().out
    run('classify', *words, '--resume', '--out', tmp_path, *SHORT, 'train_cfg.max_epochs=2')
    resumed = json.loads((tmp_path / 'classify.json').read_text())['rows'][1]['history']
    assert [row['epoch'] for row in resumed] == [1, 2]
    assert resumed[0] == written['rows'][1]['history'][0]
    capsys.readouterr()
    words = (CONFIG, tmp_path / 'trained/epoch_2.pth', *words[2:4], '--test-only')
    run('classify', *words)
    last = resumed[-1]
    assert f'{last["top1"]:.1f}/{last["top5"]:.1f}' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='head that was never trained'):
        run('classify', CONFIG, checkpoint, *words[2:])


def test_images_of_several_classes(tmp_path, capsys):
    root = write_voc(tmp_path / 'voc2007')
    options = [f'{part}.{key}' for key in (f'root={root}', 'mode=L')
               for part in ('train_dataloader.dataset.source', 'evaluation.test')]  # fmt: skip
    words = (CONFIG, 'none', '--protocol', ROOT / 'configs/benchmarks/finetune_voc2007.py', '--out', tmp_path)
    small = (
        'log_level=ERROR', 'train_dataloader.dataset.views.only.size=16', 'evaluation.transform.crop=16',
        'evaluation.transform.resize=16', 'train_cfg.max_epochs=1', 'train_dataloader.num_workers=0', *options,
    )  # fmt: skip
    with pytest.raises(SystemExit, match=r'Set model\.num_classes=2\.'):
        run('classify', *words, '--cfg-options', *small)
    small = (*small, 'model.num_classes=2')
    run('classify', *words, '--cfg-options', *small)
    said = capsys.readouterr().out
    assert 'finetune_voc2007: 11-point mAP/mAP in percent' in said
    assert 'per class' not in said
    (row,) = json.loads((tmp_path / 'classify.json').read_text())['rows']
    assert row['map11'] == row['last']['map11'] == row['scores']['last epoch']['map11']
    again = (CONFIG, tmp_path / 'untrained/epoch_1.pth', *words[2:4], '--test-only', '--cfg-options', *small)
    run('classify', *again)
    assert f'{row["map11"]:.1f}/{row["map"]:.1f}' in capsys.readouterr().out


def test_few_labels_from_scratch(tmp_path):
    words = (
        CONFIG,
        'none',
        '--protocol',
        ROOT / 'configs/benchmarks/semi_digits.py',
        '--per-class',
        2,
        '--fraction',
        0.1,
    )
    run(
        'semi',
        *words,
        '--seeds',
        3,
        4,
        '--out',
        tmp_path,
        *SHORT,
        'train_cfg.max_epochs=1',
    )
    (row,) = json.loads((tmp_path / 'semi_supervised.json').read_text())['rows']
    assert row['name'] == 'untrained encoder'
    assert {name: (score['images'], len(score['values'])) for name, score in row['scores'].items()} == {
        '10 %': (40, 2),
        '2 per class': (20, 2),
    }


@pytest.mark.parametrize(
    'change, message',
    [
        (('configs/cpc/digits_v2.py',), 'another architecture'),
        (('configs/byol/cifar10.py',), 'has 1 channel(s); the model takes 3'),
        ((None, None, 'configs/sfrik/digits_L3.py'), 'expected a Classifier'),
        ((None, 'nowhere.pth'), 'There is no checkpoint'),
    ],
)
def test_one_line_instead_of_a_traceback(checkpoint, tmp_path, change, message):
    given = [CONFIG, checkpoint, ROOT / 'configs/benchmarks/linear_digits.py']
    given = [ROOT / new if new else old for old, new in zip(given, (*change, None, None), strict=False)]
    words = (*given[:2], '--protocol', given[2], '--out', tmp_path, '--cfg-options', 'log_level=ERROR')
    with pytest.raises(SystemExit) as stop:
        run('classify', *words)
    assert message in stop.value.code
