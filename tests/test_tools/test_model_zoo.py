"""The page of the model zoo says what the metafiles say."""

import importlib.util
import re
from pathlib import Path

import pytest

from mmkernel.zoo.catalogue import catalogue
from mmkernel.zoo.metafile import PROTOCOLS, ModelInfo, Part, WeightsFile

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('model_zoo_tool', TOOLS / 'model_zoo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool):
    tool.main(['--check'])


def test_rows_with_weights_and_rows_to_train(tool):
    result = dict(
        Task='Linear probe',
        Dataset='ImageNet-1k',
        Metrics={'Top 1 Accuracy': 70.3, 'Top 5 Accuracy': 89.7},
        Source='us',
    )
    files = (WeightsFile('a', ('https://x/a',), sha256='0123456789abcdef'),
             WeightsFile('b.tar.gz', parts=(Part('1', ('https://x/1',)), Part('2', ('https://x/2',))), stage='model'))  # fmt: skip
    with_files = ModelInfo('w', 'C', 'configs/c/w.py', {}, dict(Epochs=3), (result,), files, 'them', 'MIT', 'unchecked')
    text = tool.section(
        [with_files, ModelInfo('t', 'C', 'configs/c/t.py')], {'configs/c/t.py': '1.0 ± 0.1'}
    ).splitlines()
    (row,) = [line for line in text if line.startswith('| `w`')]
    assert row == (
        '| `w` | [c/w](configs/c/w.py) | 3 | 70.3 / 89.7 linear [1] |  |  |  | [backbone](https://x/a), '
        'model ([part 1](https://x/1), [part 2](https://x/2)) | sha256 `01234567`, pinned | MIT [2] |'
    )
    assert '| `t` | [c/t](configs/c/t.py) |  |  |  |  |  |  | 1.0 ± 0.1 |' in text
    assert text[-2:] == ['[1] us  ', '[2] them']


def test_no_column_holds_figures_of_two_protocols(tool):
    titles, seen = [], set()
    for line in tool.section(list(catalogue(tool.ROOT).values()), {}).splitlines():
        cells = line.split(' | ')
        if line.startswith(('| name', '|---', '#')):
            titles = cells if line.startswith('| name') else titles
            continue
        for title, cell in zip(titles, cells, strict=False):
            word = title.split(',')[0]
            if title in tool.PUBLISHED and cell.strip():
                seen.add(word)
                others = {'linear', 'fine-tuned', 'online'} - {word}
                assert not any(re.search(rf'[0-9] {other}\b', cell) for other in others), line
    assert seen == set(PROTOCOLS)


def test_only_what_stands_between_the_markers_changes(tool):
    page = f'above\n{tool.BEGIN}\nold\n{tool.END}\nbelow\n'
    assert tool.page_with(page, 'new') == f'above\n{tool.BEGIN}\nnew\n{tool.END}\nbelow\n'
    with pytest.raises(RuntimeError, match='once each'):
        tool.page_with('mine', 'new')


def test_files_of_the_package_have_a_table_of_their_own(tool):
    ours = dict(
        Task='Weighted kNN', Dataset='digits', Metrics={'Top 1 Accuracy': 98.0}, Source='measured by us, seed 0'
    )
    theirs = dict(Task='Linear probe', Dataset='digits', Metrics={'Top 1 Accuracy': 1.0}, Source='a paper')
    file = WeightsFile('p', ('package:weights/p',), '0123456789abcdef', size=12)
    row = ModelInfo(
        'p', 'C', 'configs/c/p.py', {}, {}, (ours, theirs), (file,), 'us', 'MIT', 'measured by us', 'Not so good.'
    )
    text = tool.section([row], {'configs/c/p.py': '97.0 ± 0.1'}).splitlines()
    assert text[0] == '### In the package'
    assert (
        '| `p` | [c/p](configs/c/p.py) |  | 98.0 kNN [1] | 97.0 ± 0.1 | 12 | sha256 `01234567` | MIT |' in text
    )  # of others: in no column of this table
    assert '`p`: Not so good.  ' in text
    assert row.published == (theirs,)
