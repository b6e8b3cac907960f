"""Every config of the repository is read, checked, built on the meta device and sized; none is run at full scale here."""

import ast
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mmkernel.engine import load_config
from mmkernel.planning.dry_run import dry_run

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    p for p in [*ROOT.glob('configs/*/*.py'), *ROOT.glob('examples/*/config.py')] if p.parent.name != '_base_'
)


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize('path', CONFIGS, ids=name)
def test_dry_run(path, capsys):
    cfg = load_config(path)
    dry_run(cfg, world_size=launched_processes(path))
    printed = capsys.readouterr().out
    assert 'effective batch' in printed
    assert 'problem' not in printed


def test_a_recipe_of_ours_for_gpus_is_in_bfloat16():
    """Published recipes, and what differs from one in a detail, keep the authors' precision; first steps are on a CPU."""

    def published(path):
        base = re.search(r"^_base_ = '(\w+\.py)'", path.read_text(), re.M)
        return 'Published: ' in path.read_text() or bool(base) and published(path.parent / base[1])

    ours = [p for p in CONFIGS if p.parts[-3] == 'configs' and not published(p)]
    ours = [p for p in ours if not re.search(r'digits|tiny_imagenet|crops|benchmarks', str(p.relative_to(ROOT)))]
    assert len(ours) >= 10
    for path in ours:
        wrapper = Config.fromfile(path, import_custom_modules=False).optim_wrapper
        assert wrapper.get('precision') == 'bfloat16', name(path)


@pytest.mark.parametrize('path', CONFIGS, ids=name)
def test_docstring_says_how_to_run_it_and_what_to_expect(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert name(path) in text, 'the launch line names this file'
    assert re.search(r'Published: \d\d\.\d %|No published result', text)
    assert re.search(r'Not measured by us|Measured by us', text)


@pytest.mark.parametrize('path', CONFIGS, ids=name)
def test_short_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= 36


def launched_processes(path):
    line = re.search(rf'dist_train.sh {re.escape(name(path))} (\d+)|nproc_per_node (\d+)', path.read_text())
    return int(line[1] or line[2]) if line else 1


def test_the_recipe_of_the_paper():
    """The figures of the official README: batch 2048, peak 3.2, c_sim / q = 1.22, LARS without decay on 1-d parameters."""
    cfg = load_config(ROOT / 'configs/sfrik/r50_L3_q32768.py')
    processes = launched_processes(ROOT / 'configs/sfrik/r50_L3_q32768.py')
    assert cfg.train_dataloader.batch_size * processes == 2048
    assert cfg.optim_wrapper.optimizer.lr * 2048 / 256 == pytest.approx(3.2)
    assert (cfg.optim_wrapper.optimizer.type, cfg.optim_wrapper.optimizer.weight_decay) == ('LARS', 1e-6)
    assert cfg.param_scheduler == dict(type='WarmupCosineLR', warmup_epochs=10, end_factor=0.001)
    assert cfg.train_cfg.max_epochs == 200
    head = cfg.model.head
    assert (head.alignment_weight, head.reduction) == (40000, 'element')
    assert tuple(head.kernel.weights) == (1, 40, 40)
    assert head.alignment_weight / cfg.model.neck.dims[-1] == pytest.approx(1.22, abs=0.005)


@pytest.mark.parametrize('path', [p for p in CONFIGS if re.search(r'(sfrik|kernels)/.*_q\d+\.py$', str(p))], ids=name)
def test_weight_per_squared_distance_does_not_depend_on_the_width(path):
    cfg = Config.fromfile(path)
    per_distance = cfg.model.head.alignment_weight / cfg.model.neck.dims[-1]
    assert f'_q{cfg.model.neck.dims[-1]}' in path.name
    expected = {'rbf': 3000 / 8192, 'r50': 40000 / 32768}
    key = 'rbf' if 'rbf' in path.name else path.name[:3]
    assert per_distance == pytest.approx(expected.get(key, 4000 / 8192), rel=1e-9)
