"""Configs for frameworks that are not installed here: read, not run."""

import ast

import pytest
from mmengine.config import Config

FOLDER = 'configs/benchmarks/detection'


@pytest.fixture
def folder(repository):
    return repository / FOLDER


def test_each_says_how_to_run_it_and_that_nobody_did(folder):
    paths = sorted(path for path in folder.iterdir() if path.suffix in ('.py', '.yaml'))
    assert len(paths) >= 5
    for path in paths:
        text = path.read_text()
        assert 'Not measured by us' in text, path
        if path.name != 'detectron2_c4.yaml':
            assert f'{FOLDER}/{path.name}' in text, path
            assert 'mmkernel export CHECKPOINT --to' in text, path


@pytest.mark.parametrize('name', ['detectron2_voc_c4_24k', 'detectron2_coco_c4_2x'])
def test_yaml(folder, name):
    text = (folder / f'{name}.yaml').read_text()
    own = Config.fromstring(text.replace('_BASE_:', 'base:'), '.yaml')
    base = Config.fromfile(folder / own.base)
    assert base.MODEL.RESNETS.STRIDE_IN_1X1 is False
    assert (base.MODEL.BACKBONE.FREEZE_AT, base.INPUT.FORMAT) == (0, 'RGB')
    steps, last = ast.literal_eval(own.SOLVER.STEPS), own.SOLVER.MAX_ITER
    assert all(step < last for step in steps)
    assert max(ast.literal_eval(own.INPUT.MIN_SIZE_TRAIN)) == own.INPUT.MIN_SIZE_TEST == 800


@pytest.mark.parametrize('name', ['mmdet_mask_rcnn_fpn_1x_coco', 'mmseg_fcn_d8_20k_voc12aug'])
def test_what_is_put_on_the_published_base(folder, name):
    """Without the base, which only the framework has."""
    lines = (folder / f'{name}.py').read_text().splitlines()
    own = Config.fromstring('\n'.join(line for line in lines if not line.startswith('_base_')), '.py')
    assert own.model.backbone.init_cfg.type == 'Pretrained'
    assert own.model.backbone.init_cfg.checkpoint.endswith('.pth')
