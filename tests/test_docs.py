"""Pages of docs/ whose files are run as they stand."""

import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mmkernel.cli import main
from mmkernel.kernels import RBFKernel

BLOCK = re.compile(r'<!-- (file|append): (\S+) -->\n```python\n(.*?)```', re.S)


def test_pages_name_files_that_exist(repository):
    lost = []
    for page in [*repository.glob('*.md'), *repository.glob('docs/**/*.md'), *repository.glob('*/**/README.md')]:
        text = page.read_text()
        links = re.findall(r'\]\((?!https?:)([^)#\s]+)', text)
        rooms = r'`((?:mmkernel|tools|tests|configs|docs|benchmarks|examples)/[\w./-]+)(?:::\w+)?`'
        lost += [f'{page.name}: {name}' for name in links if not (page.parent / name).exists()]
        lost += [f'{page.name}: {name}' for name in re.findall(rooms, text) if not (repository / name).exists()]
    assert not lost, '\n'.join(lost)


@pytest.fixture(scope='module')
def project(repository, tmp_path_factory):
    """The page's files, in a folder that sees the repository's configs as a neighbour."""
    root = tmp_path_factory.mktemp('docs')
    (root / 'configs').symlink_to(repository / 'configs')
    folder = root / 'my_paper'
    folder.mkdir()
    for how, name, text in BLOCK.findall((repository / 'docs/add_your_own_method.md').read_text()):
        with (folder / name).open('w' if how == 'file' else 'a') as file:
            file.write(text if how == 'file' else f'\n\n{text}')
    return folder


def run(command, cwd):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize('config', ['config.py', 'config_kernel.py'])
def test_own_parts_train(repository, project, tmp_path, config):
    options = ['train_cfg.max_epochs=1', 'param_scheduler.warmup_epochs=0', 'model.backbone.channels=(4,4,4,4)']
    command = [sys.executable, repository / 'tools/train.py', project / config, '--work-dir', tmp_path]
    run([*command, '--cfg-options', *options], project)
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_own_kernel_keeps_the_contract(project):
    printed = run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'test_my_parts.py'], project)
    assert re.search(r'1\d passed', printed) or '..........' in printed


@pytest.mark.parametrize('page, count', [('engine', 3), ('matching_a_distribution', 1)])
def test_a_page_runs_from_top_to_bottom(repository, page, count):
    snippets = re.findall(r'<!-- run -->\n```python\n(.*?)```', (repository / f'docs/{page}.md').read_text(), re.S)
    assert len(snippets) == count
    run([sys.executable, '-c', '\n'.join(snippets)], repository)


def test_data_page_runs(repository, tmp_path):
    page = (repository / 'docs/your_own_data.md').read_text()
    snippets = re.findall(r'<!-- run -->\n```python\n(.*?)```', page, re.S)
    assert len(snippets) == 3
    run([sys.executable, '-c', '\n'.join(snippets)], tmp_path)


def test_own_data_in_one_command(repository, tmp_path, monkeypatch, capsys):
    """The commands of the page, one after the other, on 24 small pictures."""
    for i in range(24):
        path = tmp_path / 'photos' / 'ab'[i % 2] / f'{i}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(path)
    monkeypatch.chdir(tmp_path)
    page = (repository / 'docs/your_own_data.md').read_text()
    (block,) = re.findall(r'<!-- run: own data -->\n```bash\n(.*?)```', page, re.S)
    for line in block.replace('10', '2').replace('=12', '=3').strip().splitlines():  # fewer epochs
        main(shlex.split(line)[1:])
    run = tmp_path / 'work_dirs/photos_sfrik_resnet18_64'
    files = {path.name for path in run.iterdir()}
    assert {'recipe.py', 'best_mmd2.pth', 'epoch_3.pth', 'epoch_2_diagnosis.html'} <= files
    assert 'top1' in capsys.readouterr().out.lower().replace('-', '').replace(' ', '')
    shown = page.split("_base_ = 'mmkernel::")[1].split('...')[0]  # of the config that the page shows
    shown = shown.replace('/home/me/photos', str(tmp_path / 'photos')).replace('4 steps of 64', '3 steps of 8')
    shown = shown.replace('batch_size=64', 'batch_size=8').replace('0.3 = 1.2 x 64', '0.0375 = 1.2 x 8')
    written = re.sub(r'num_workers=\d+', 'num_workers=2', (run / 'recipe.py').read_text())
    shown, written = (re.sub(r'[\s,]', '', text) for text in (shown, written))  # wherever lines break
    assert shown in written


def test_readme_loop_runs(repository):
    (snippet,) = re.findall(
        r'```python\n(from mmkernel.models import KernelMMDHead.*?)```', (repository / 'README.md').read_text(), re.S
    )
    encoder = torch.nn.Linear(8, 16)
    before = encoder.weight.clone()
    names = dict(
        encoder=encoder, view1=torch.randn(4, 8), view2=torch.randn(4, 8), kernel=RBFKernel(scale=2.0),
        optimizer=torch.optim.SGD(encoder.parameters(), lr=0.1),
    )  # fmt: skip
    exec(compile(snippet, 'README.md', 'exec'), names)
    assert names['loss'].shape == ()
    assert not torch.equal(encoder.weight, before)


def test_readme_snippet_runs(repository):
    snippet = re.search(
        r'```python\n(import torch\nfrom mmkernel.kernels.*?)```', (repository / 'README.md').read_text(), re.S
    )
    printed = run([sys.executable, '-c', snippet[1]], repository)
    assert 'positive definite' in printed


@pytest.mark.parametrize('page, word', [('diagnosis', 'collapsed'), ('kernel_lab', 'LegendreKernel(weights=')])
def test_snippets_of_a_page(repository, page, word):
    text = (repository / f'docs/{page}.md').read_text()
    snippets = re.findall(r'```python\n(.*?)```', text, re.S)
    assert snippets
    assert word in run([sys.executable, '-c', '\n'.join(snippets)], repository)


def test_commands_of_the_kernel_lab(repository, tmp_path):
    commands = re.findall(r'^mmkernel (kernel .*)$', (repository / 'docs/kernel_lab.md').read_text(), re.M)
    assert len(commands) == 3
    for command in commands:
        run([sys.executable, '-m', 'mmkernel', *shlex.split(command)], tmp_path)


def test_page_on_weights_runs(repository, tmp_path):
    page = (repository / 'docs/weights_in_and_out.md').read_text()
    graphs, *loading = re.findall(r'<!-- run -->\n```python\n(.*?)```', page, re.S)
    run([sys.executable, '-c', graphs], tmp_path)
    assert len(loading) == 2
    for code in loading:
        said = re.search(r'^# (\d+/\d+ tensors.*)$', code, re.M)[1]
        assert said in run([sys.executable, '-c', code], tmp_path)
