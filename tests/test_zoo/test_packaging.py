"""Configs, metafiles and small weights travel with the package, so that the zoo works outside a checkout."""

import json
import os
import shutil
import subprocess
import sys

import pytest

LOOK = """
import mmkernel
from mmkernel.zoo.catalogue import config_of, list_models, model_info
from mmkernel.zoo.name_rules import key_maps
from mmkernel.zoo.catalogue import root
print(root())
print(len(list_models()), len(key_maps()), config_of(model_info('kernels_digits_rbf')).model.head.type)
print(mmkernel.get_model('sfrik_digits_L3', pretrained=True).out_dim)
"""


def test_a_built_package_has_its_zoo(repository, tmp_path):
    pytest.importorskip('setuptools')
    source, built = tmp_path / 'source', tmp_path / 'lib'
    source.mkdir()
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(repository / name, source)
    for name in ('mmkernel', 'configs'):
        shutil.copytree(repository / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    command = [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(built)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    assert not list(built.rglob('__pycache__'))
    environment = os.environ | dict(PYTHONPATH=str(built), OMP_NUM_THREADS='1', MMKERNEL_OFFLINE='1')
    environment['MMKERNEL_HOME'] = str(tmp_path / 'home')
    run = subprocess.run([sys.executable, '-c', LOOK], cwd='/', env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    place, found, width = run.stdout.splitlines()
    assert place == str(built / 'mmkernel')
    models, layouts, head = found.split()
    assert int(models) > 100
    assert int(layouts) >= 8
    assert head == 'KernelMMDHead'
    assert width == '96'
    assert not (tmp_path / 'home').exists()
    assert len(list((built / 'mmkernel/weights').glob('*.md'))) == 5
    command = [sys.executable, '-m', 'mmkernel', 'knn', 'sfrik_digits_L3', '--k', '10', '--no-raw']
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 'trained encoder' in run.stdout
    (written,) = json.loads((tmp_path / 'work_dirs/sfrik/digits_L3/knn.json').read_text())['rows'][1:]
    assert written['scores']['10']['top1'] > 98
    assert not (built / 'mmkernel/tools').exists()
    own = "_base_ = ['mmkernel::sfrik/digits_L3.py', 'mine.py']\ntrain_cfg = dict(max_epochs=1)\n"
    (tmp_path / 'mine.py').write_text('helper = 1\n')
    (tmp_path / 'own.py').write_text(own + 'train_dataloader = dict(num_batch_per_epoch=2, batch_size=16)\n')
    command = [sys.executable, '-m', 'mmkernel', 'train', 'own.py', '--work-dir', 'run']
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (tmp_path / 'own.py').unlink()
    load = "import mmkernel; print(mmkernel.load('run/epoch_1.pth').out_dim)"
    run = subprocess.run([sys.executable, '-c', load], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.stdout == '96\n', run.stderr
