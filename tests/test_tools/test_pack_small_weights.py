"""Rows of the small weights are replaced without touching others; wrong runs are refused; rounding is what files do."""

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from mmkernel.engine import load_config
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.publish import add_row

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('pack_small_weights_tool', TOOLS / 'pack_small_weights.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_row_is_replaced_and_others_stay(tool, repository, tmp_path):
    path = tmp_path / 'metafile.yml'
    shutil.copy(repository / 'configs/sfrik/metafile.yml', path)
    before = yaml.safe_load(path.read_text())
    text = path.read_text()
    for name in ('sfrik_digits_L1', 'sfrik_digits_L3'):
        (row,) = [row for row in before['Models'] if row['Name'] == name]
        tool.drop_files(path, name)
        (bare,) = [row for row in yaml.safe_load(path.read_text())['Models'] if row['Name'] == name]
        assert set(bare) == {'Name', 'In Collection', 'Config', 'Metadata'}
        add_row(path, row)
    assert path.read_text() == text
    with pytest.raises(RuntimeError, match='has no row nobody'):
        tool.drop_files(path, 'nobody')


def test_runs_of_another_recipe_are_refused(tool, repository, tmp_path):
    config = repository / 'configs/sfrik/digits_L2.py'
    cfg = load_config(config)
    (tmp_path / 'config.py').write_text(config_text(cfg.to_dict()))
    run = SimpleNamespace(name='sfrik/digits_L2', folder=tmp_path, cfg=cfg)
    tool.check_same_recipe(run, dict(epoch=20, seed=0))
    for meta in (dict(epoch=10, seed=0), dict(epoch=20, seed=1)):
        with pytest.raises(RuntimeError, match='is not a finished run of sfrik/digits_L2 with seed 0'):
            tool.check_same_recipe(run, meta)
    run.cfg = load_config(repository / 'configs/sfrik/digits_L3.py')
    with pytest.raises(RuntimeError, match='changed since: model'):
        tool.check_same_recipe(run, dict(epoch=20, seed=0))


def test_rounding_spares_vectors(tool):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    nn.init.constant_(model[0].weight, 1 / 3)
    nn.init.constant_(model[1].weight, 1 / 3)
    tool.round_to_half(model)
    assert torch.equal(model[0].weight, torch.full((3, 3), 1 / 3).half().float())
    assert torch.equal(model[1].weight, torch.full((3,), 1 / 3))
