"""Code on the pages of docs/ and the README: python blocks are run, commands are read by the parser, scripts exist.

How a page marks a block, in a comment on the line before it:

    <!-- run -->                    run from top to bottom of the page, in one process
    <!-- run: lightning -->         run alone, where these packages are installed
    <!-- torchrun: 2 -->            run alone on so many processes
    <!-- file: NAME -->            a file that lies beside them; config.py is tried by --dry-run
    <!-- pytest -->                 tests, which are run
    <!-- shown: REASON -->          not run
"""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmkernel.cli import app
from mmkernel.cli.commands import COMMANDS, FOLDERS
from mmkernel.engine.allowed_keys import TOP_LEVEL

ROOT = Path(__file__).resolve().parents[1]
NEW = sorted([*ROOT.glob('docs/*/*.md'), ROOT / 'docs/index.md', ROOT / 'docs/faq.md'])
PAGES = sorted([*ROOT.glob('*.md'), ROOT / 'tools/benchmarks/README.md', *ROOT.glob('docs/**/*.md')])
BLOCK = re.compile(r'(?:<!-- ([\w ]+?)(?:: ([^\n]+))? -->\n)?^```python\n(.*?)^```', re.M | re.S)


def page_name(path):
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else None


def run(command, folder):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'agg'}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.mark.parametrize('page', NEW, ids=page_name)
def test_python_runs(page, tmp_path):
    blocks = BLOCK.findall(page.read_text())
    unmarked = [code for how, _, code in blocks if how not in ('run', 'torchrun', 'file', 'pytest', 'shown')]
    assert not unmarked, f'mark how it is run:\n{unmarked[0]}'
    for name, code in [(what, code) for how, what, code in blocks if how == 'file']:
        (tmp_path / name).write_text(code)
    together = [code for how, what, code in blocks if how == 'run' and not what]
    if together:
        run([sys.executable, '-c', '\n'.join(together)], tmp_path)
    for how, what, code in blocks:
        (tmp_path / 'alone.py').write_text(code)
        if what == 'config.py':
            run([sys.executable, '-m', 'mmkernel', 'train', what, '--dry-run'], tmp_path)
        if how == 'pytest':
            run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'alone.py'], tmp_path)
        if how == 'torchrun':
            run([sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', what, 'alone.py'], tmp_path)
        if how == 'run' and what and all(find_spec(name) for name in what.split()):
            run([sys.executable, 'alone.py'], tmp_path)


def lines_of_shell(page):
    """Commands in the bash blocks of a page, with continued lines joined."""
    for block in re.findall(r'^```bash\n(.*?)^```', page.read_text(), re.M | re.S):
        yield from block.replace('\\\n', ' ').splitlines()


@pytest.mark.parametrize('page', PAGES, ids=page_name)
def test_commands_are_read_by_the_parser(page):
    for line in lines_of_shell(page):
        if re.match(r'mmkernel (?!COMMAND)', line) and not re.search(r'\.\.\.|\||LAYOUT', line):
            words = shlex.split(line.partition(' > ')[0], comments=True)[1:]
            known = ' '.join(words[:2]) in COMMANDS or words[0] in COMMANDS or words[0] in FOLDERS
            assert known or words[0].startswith('--'), line
            if not words[0].startswith('--'):
                app().parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize('page', PAGES, ids=page_name)
def test_scripts_and_configs_of_commands_exist(page):
    for line in lines_of_shell(page):
        for name in re.findall(r'(?<![\w/])(?:tools|configs|examples|benchmarks)/[\w./-]+\.(?:py|sh)\b', line):
            assert (ROOT / name).is_file(), line


def test_the_notebook_runs(tmp_path):
    nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient')
    pytest.importorskip('ipykernel')
    notebook = nbformat.read(ROOT / 'docs/kernel_lab.ipynb', 4)
    assert not any(cell.get('outputs') for cell in notebook.cells), 'clear all outputs before it is committed'
    nbclient.NotebookClient(notebook, timeout=200, resources={'metadata': {'path': str(tmp_path)}}).execute()
    pictures = [out for cell in notebook.cells for out in cell.get('outputs', ()) if 'image/png' in out.get('data', {})]
    assert len(pictures) == 2


def test_settings_name_every_key_of_a_config():
    page = (ROOT / 'docs/reference/settings.md').read_text()
    assert not [key for key in TOP_LEVEL if f'`{key}`' not in page]


def test_settings_name_every_variable_of_the_environment():
    page = (ROOT / 'docs/reference/settings.md').read_text()
    code = '\n'.join(path.read_text() for path in (ROOT / 'mmkernel').rglob('*.py'))
    variables = set(re.findall(r"'(MMKERNEL_\w+)'", code))
    assert len(variables) >= 5
    assert not [name for name in variables if name not in page]
