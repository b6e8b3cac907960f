"""The comparison page: the table of several seeds, and where it is written."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture(scope='module')
def compare():
    sys.path.insert(0, str(TOOLS / 'benchmarks'))
    spec = importlib.util.spec_from_file_location('compare', TOOLS / 'benchmarks/compare.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(TOOLS / 'benchmarks'))
    return module


def row(value, **more):
    scores = {kind: {shot: dict(mean=value) for shot in ('1', '4', 'all')} for kind in ('knn', 'linear')}
    return dict(scores=scores, **more)


def test_mean_and_spread_over_seeds_best_first(compare):
    trained = dict(std=0.9, rank=7.25, dimensions=16, seconds=30.4)
    table = compare.markdown({'raw': [row(60.0)], 'ours': [row(70.0, **trained), row(72.0, **trained)]}).splitlines()
    assert table[2].startswith('| ours | 71.0 ± 1.4 |')
    assert table[2].endswith('| 0.90 | 7.2 of 16 | 30 |')
    assert table[3] == '| raw |' + ' 60.0 |' * 6 + '  |' * 3
    assert len({line.count('|') for line in table}) == 1


def test_rows_of_an_earlier_comparison(compare, tmp_path):
    path = tmp_path / 'compare.json'
    rows = [row(60.0, name='raw'), row(70.0, name='ours'), row(72.0, name='ours')]
    path.write_text(json.dumps(dict(config=['a.py'], rows=rows)))
    assert compare.earlier(path) == ({'raw': rows[:1], 'ours': rows[1:]}, ['a.py'])


def test_only_what_stands_between_the_markers_changes(compare, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(f'above\n{compare.BEGIN}\nold\n{compare.END}\nbelow\n')
    compare.write_between_markers(page, 'new')
    compare.write_between_markers(page, 'newer')
    assert page.read_text() == f'above\n{compare.BEGIN}\nnewer\n{compare.END}\nbelow\n'


def test_a_page_without_markers_is_left_alone(compare, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('mine')
    with pytest.raises(RuntimeError, match='must hold'):
        compare.write_between_markers(page, 'new')
    assert page.read_text() == 'mine'


def test_the_page_of_the_repository_has_the_markers(compare):
    page = (TOOLS.parent / 'model_zoo.md').read_text()
    assert page.count(compare.BEGIN) == page.count(compare.END) == 1
