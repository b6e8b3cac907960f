"""The commands of the SVM, to transfer and to transformation prediction, on images made here."""

import json
import pickle

import pytest
import torch
from photographs import write_voc

from mmkernel.cli import main
from mmkernel.engine import load_config
from mmkernel.evaluation import untrained_encoder


@pytest.fixture
def door(config, tmp_path):
    """command, words -> the JSON that it writes."""

    def run(command, *words):
        out = tmp_path / 'out.json'
        always = ('--out', out, '--cache', tmp_path / 'features', '--device', 'cpu')
        main([command, *map(str, (config, *words, *always))])
        return json.loads(out.read_text())

    return run


def test_machines(door, tmp_path, capsys):
    write_voc(tmp_path)
    words = ('--root', tmp_path, '--size', 16, '--costs', 1, 0.01)
    written = door('svm', *words)
    assert [row['name'] for row in written['rows']] == ['raw pixels', 'untrained encoder']
    raw = written['rows'][0]['scores']
    assert set(raw['ap']) == {'bus', 'cat'}
    assert raw['ap']['cat'] > 80
    assert written['settings']['images'] == dict(train=36, test=36, classes=['bus', 'cat'])
    assert 'mAP-11' in capsys.readouterr().out
    written = door('svm', *words, '--low-shot', '--shots', 1, 2, '--draws', 2, '--classes', 'bus', 'cat')
    assert list(written['rows'][1]['scores']) == ['1', '2']


def test_transfer_says_what_it_leaves_out(door, tmp_path, capsys):
    written = door('transfer', '--sets', 'pets', 'digits', '--root', tmp_path, '--size', 16, '--penalties', 1)
    assert list(written['rows'][0]['scores']) == ['digits']
    assert written['rows'][0]['scores']['digits']['score'] > 90
    assert list(written['settings']['left_out']) == ['pets']
    assert 'pets left out: OxfordPets' in capsys.readouterr().out


def test_transfer_to_photographs_with_several_classes(door, tmp_path, capsys):
    write_voc(tmp_path / 'voc2007')
    written = door('transfer', '--sets', 'voc2007', '--root', tmp_path, '--size', 16, '--penalties', 10, 0.1)
    raw = written['rows'][0]['scores']['voc2007']
    assert raw['metric'] == 'map11'
    assert raw['l2'] in (10, 0.1)
    assert (raw['train'], raw['test']) == (36, 36)
    assert '11-point mAP' in capsys.readouterr().out


def test_transfer_without_any_set_or_size(door, tmp_path):
    with pytest.raises(SystemExit, match='None of the sets is below'):
        door('transfer', '--sets', 'pets', '--root', tmp_path, '--size', 16)
    with pytest.raises(SystemExit, match='give --size'):
        door('transfer', '--sets', 'pets', '--root', tmp_path)
    with pytest.raises(SystemExit, match="--sets birds: expected 'config'"):
        door('transfer', '--sets', 'birds', '--root', tmp_path)


def test_transformations(door, capsys):
    written = door('transformation', '--tasks', 'grey', 'rotation', '--hidden', 16, '--epochs', 2)
    (row,) = written['rows']
    assert row['name'] == 'untrained encoder'
    assert set(row['scores']) == {'rotation'}
    assert set(row['scores']['rotation']) == {'h', 'g(h)'}
    assert 20 < row['scores']['rotation']['h']['majority'] < 40
    assert 'grey left out' in capsys.readouterr().out


def test_export_of_a_backbone(config, tmp_path):
    text = config.read_text().replace('resnet10t', 'resnet18').replace('in_channels=1', 'in_channels=3')
    text = text.replace('mean=[0.3], std=[0.4]', 'mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.2]')
    (tmp_path / 'colour.py').write_text(text)
    torch.save(dict(state_dict=untrained_encoder(load_config(tmp_path / 'colour.py')).state_dict()), tmp_path / 'x.pth')
    words = ('--config', tmp_path / 'colour.py', '--to', 'detectron2', '--size', 64, '--out', tmp_path / 'weights.pkl')
    main(['export', str(tmp_path / 'x.pth'), *map(str, words)])
    weights = pickle.loads((tmp_path / 'weights.pkl').read_bytes())
    assert weights['pixel_mean'] == [127.5, 102.0, 76.5]
    assert weights['model']['res2.0.conv1.norm.weight'].shape == (64,)


def test_what_a_person_can_mend_is_said_in_one_line(door, tmp_path):
    with pytest.raises(SystemExit, match='mmkernel svm: VOC2007: folder'):
        door('svm', '--root', tmp_path / 'nowhere', '--size', 16)
