"""The study of label-free criteria: its recipes, its scores, its table."""

import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmkernel.engine import load_config
from mmkernel.evaluation import agreement, untrained_encoder
from mmkernel.registry import DATASETS

ROOT = Path(__file__).resolve().parents[2]
WORDS = ('rank', 'feature_rank', 'mmd2', 'alignment', 'uniformity')


@pytest.fixture(scope='module')
def study():
    sys.path.insert(0, str(ROOT / 'tools/benchmarks'))
    spec = importlib.util.spec_from_file_location('checkpoint_choice', ROOT / 'tools/benchmarks/checkpoint_choice.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.pop(0)
    return module


def checkpoint(epoch, linear, without=(), **statistics):
    values = {word: 1.0 for word in WORDS if word not in without} | statistics
    return dict(epoch=epoch, linear=linear, statistics=values)


def test_agreement_of_each_criterion():
    rows = [
        checkpoint(2, 90.0, rank=1.0, mmd2=3.0),
        checkpoint(4, 95.0, rank=3.0, mmd2=1.0),
        checkpoint(6, 93.0, rank=2.0, mmd2=2.0),
    ]
    found = agreement(rows, 'linear')
    assert found['rank'] == dict(rho=pytest.approx(1.0), regret=0.0)
    assert found['mmd2'] == dict(rho=pytest.approx(1.0), regret=0.0)  # less is better
    assert found['epoch'] == dict(rho=pytest.approx(0.5), regret=2.0)
    assert found['uniformity']['rho'] is None  # it never varies
    patches = agreement([checkpoint(*each, without=['alignment']) for each in ((1, 1.0), (2, 2.0), (3, 3.0))], 'linear')
    assert 'alignment' not in patches
    assert 'alignment_uniformity' not in patches


def test_table_and_mean(study):
    one = dict(rank=dict(rho=0.5, regret=1.0), epoch=dict(rho=None, regret=0.2))
    two = dict(rank=dict(rho=-0.1, regret=0.0), epoch=dict(rho=1.0, regret=0.0))
    assert study.mean([one, two]) == dict(rank=dict(rho=pytest.approx(0.2), regret=0.5))
    table = study.markdown(dict(a=one, b=two, both=study.mean([one, two]))).splitlines()
    assert table[0] == '| checkpoints | rank | epoch |'
    assert table[2] == '| a | +0.50 (1.0) | – (0.2) |'
    assert table[4] == '| both | +0.20 (0.5) |  |'


def test_the_page_of_the_repository_has_the_markers(study):
    page = (ROOT / 'docs/choosing_a_checkpoint.md').read_text()
    assert page.count(study.BEGIN) == page.count(study.END) == 1
    assert 'tools/benchmarks/checkpoint_choice.py' in page


def test_recipes_and_scores_of_checkpoints(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study, 'IMAGES', 40)
    path = study.many_checkpoints('sfrik/digits_L3', 5, tmp_path)
    cfg = load_config(path, {'model.backbone.channels': (4, 4, 4, 8), 'model.neck.dims': (8, 8)})
    assert (cfg.default_hooks.checkpoint.interval, cfg.default_hooks.checkpoint.max_keep) == (5, None)
    cfg.evaluation.train.split = 'test'
    weights = tmp_path / 'epoch_5.pth'
    torch.save(dict(state_dict=untrained_encoder(cfg).state_dict()), weights)
    rows = study.scored(cfg, [weights], tmp_path / 'rows.json', 'tiny')
    assert rows == json.loads((tmp_path / 'rows.json').read_text())
    assert rows[0]['epoch'] == 5
    assert 0 < rows[0]['linear'] <= 100
    assert rows[0]['statistics']['rank'] >= 1
    assert study.scored(cfg, [weights], tmp_path / 'rows.json', 'tiny') == rows  # not computed twice


def test_the_recipe_on_a_pack_reads_its_images(study, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(buffer, 'JPEG')
    blob = np.frombuffer(buffer.getvalue(), np.uint8)
    arrays = dict(train_jpeg=np.tile(blob, 2), train_off=np.arange(3) * len(blob), train_label=np.arange(2))
    np.savez(tmp_path / 'pack.npz', **arrays, train_file=np.array(['a', 'b']), classes=np.array(['cat', 'dog']))
    cfg = load_config(study.many_checkpoints('simclr/digits', 2, tmp_path, tmp_path / 'pack.npz'))
    views = DATASETS.build(cfg.train_dataloader.dataset)[0, 1]
    assert [view.shape for view in views['inputs']] == [(3, 32, 32)] * 2
    assert cfg.model.backbone.in_channels == len(cfg.data_preprocessor.mean) == 3
    assert cfg.evaluation.test.source.path == str(tmp_path / 'pack.npz')
