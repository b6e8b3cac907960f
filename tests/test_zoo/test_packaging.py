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


@pytest.fixture
def source(repository, tmp_path):
    """What the package is built from: building leaves files beside it."""
    pytest.importorskip('setuptools')
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'):
        shutil.copy(repository / name, source)
    for name in ('mmkernel', 'configs'):
        shutil.copytree(repository / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    return source


def outside(built, home):
    """The environment of a process that sees what was built, and no checkout."""
    environment = os.environ | dict(
        PYTHONPATH=str(built), OMP_NUM_THREADS='1', MMKERNEL_OFFLINE='1', MMKERNEL_HOME=str(home)
    )
    return {key: value for key, value in environment.items() if key != 'PYTHONSAFEPATH'}


def test_a_built_package_has_its_zoo(source, tmp_path):
    built = tmp_path / 'lib'
    command = [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(built)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    assert not list(built.rglob('__pycache__'))
    environment = outside(built, tmp_path / 'home')
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


def pip(*words, cwd):
    command = [sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check', *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_a_wheel_serves_an_empty_folder(source, tmp_path):
    """As a release is made: an archive of the source, a wheel of the archive; then the first things that a user tries."""
    command = [sys.executable, 'setup.py', '-q', 'sdist', '--dist-dir', str(tmp_path / 'dist')]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (archive,) = (tmp_path / 'dist').iterdir()
    pip('wheel', archive, '--no-deps', '--no-build-isolation', '--wheel-dir', tmp_path / 'dist', cwd=tmp_path)
    (wheel,) = (tmp_path / 'dist').glob('*.whl')
    built, folder = tmp_path / 'lib', tmp_path / 'empty'
    pip('install', wheel, '--no-deps', '--target', built, cwd=tmp_path)
    assert {path.name.split('-')[0] for path in built.iterdir()} == {'mmkernel', 'bin'}  # no tests, no tools
    for room in ('mmkernel', 'configs'):
        whole = {path.relative_to(source) for path in (source / room).rglob('*') if path.is_file()}
        inside = built / 'mmkernel' if room == 'configs' else built
        assert not [path for path in whole if '__pycache__' not in path.parts and not (inside / path).is_file()]
    folder.mkdir()
    environment = outside(built, tmp_path / 'home')

    def said(*words):
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, (words, (done.stdout + done.stderr)[-3000:])
        return done.stdout

    def mmkernel(*words):
        return said('-m', 'mmkernel', *words)

    assert mmkernel('--version').startswith('mmkernel ')
    assert json.loads(mmkernel('env', '--json'))['packages']['mmkernel'].endswith(f'({built / "mmkernel"})')
    assert 'sfrik/digits_L3' in mmkernel('config', 'list', 'sfrik')
    assert 'sfrik_digits_L3' in mmkernel('zoo', 'list', '*digits*')
    assert said('-c', LOOK).split()[0] == str(built / 'mmkernel')
    mmkernel('train', 'sfrik/digits_L3', '--cfg-options', 'train_cfg.max_epochs=1')
    (checkpoint,) = folder.glob('work_dirs/sfrik/digits_L3/epoch_1.pth')
    verdict = json.loads(mmkernel('diagnose', checkpoint, '--images', 200, '--json'))
    assert verdict['verdict']
    script = subprocess.run([built / 'bin/mmkernel', '--version'], env=environment, capture_output=True, text=True)
    assert script.stdout.startswith('mmkernel '), script.stderr
