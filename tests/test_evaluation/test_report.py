import io
import json
import re

import pytest
from rich.console import Console

from mmkernel.evaluation import probe_table, report, save_report, score_table
from mmkernel.evaluation.report import TABLES, table_of

FEW = {
    '1': dict(mean=78.24, sd=3.14, values=[1, 2]),
    '4': dict(mean=88.0, sd=2.0, values=[1, 2]),
    'all': dict(mean=97.0, sd=0.0, values=[97.0]),
}


def text(table):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_few_label_table():
    shown = text(score_table([dict(name='untrained encoder', width=64, scores=dict(knn=FEW, linear=FEW))]))
    for word in ('untrained encoder', 'kNN', 'linear', '1 label', '4 labels', 'all', '78.2±3.1', '97.0'):
        assert word in shown
    assert '97.0±' not in shown


def test_knn_and_probe_tables():
    score = dict(top1=61.5, top5=90.0)
    assert '61.5/90.0' in text(probe_table([dict(name='raw pixels', width=256, scores={20: score})]))
    shown = text(probe_table([dict(name='raw pixels', width=256, scores={'SGD, 100 epochs': score})]))
    assert 'SGD, 100 epochs' in shown
    assert '61.5/90.0' in shown
    several = dict(score, sd=0.42, values=[61.1, 61.9])
    shown = text(probe_table([dict(name='raw pixels', width=256, scores={'best of 9 heads': several})]))
    assert '61.5±0.4/90.0' in shown


def test_report_is_json_and_says_how(tmp_path):
    rows = [dict(name='raw pixels', width=256, scores={20: dict(top1=61.5, top5=90.0)})]
    path = save_report(tmp_path / 'new' / 'knn.json', report('knn', rows, 'configs/a.py', None, 3, k=[20]))
    read = json.loads(path.read_text())
    assert read['status'] == 'measured by us'
    assert (read['config'], read['checkpoint'], read['seed']) == ('configs/a.py', None, 3)
    assert read['settings'] == dict(k=[20])
    assert read['rows'][0]['scores']['20']['top1'] == 61.5
    assert read['versions']['torch']
    assert [p.name for p in path.parent.iterdir()] == ['knn.json']


def test_a_place_where_no_file_can_lie_is_named_and_nothing_is_left(tmp_path):
    with pytest.raises(OSError, match='cannot be written .it is a folder.. Expected a file'):
        save_report(tmp_path / 'new' / '..', {})
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r"file/x.json' cannot be written"):
        save_report(tmp_path / 'file' / 'x.json', {})
    with pytest.raises(TypeError):
        save_report(tmp_path / 'x.json', dict(a=object()))
    assert not list(tmp_path.glob('*.partial'))


def test_a_result_is_replaced_by_that_of_a_later_run(tmp_path):
    for number in (1, 2):
        save_report(tmp_path / 'x.json', dict(number=number))
    assert json.loads((tmp_path / 'x.json').read_text()) == dict(number=2)


def test_an_earlier_result_that_says_something_else_is_kept(tmp_path):
    path = tmp_path / 'knn.json'
    for value in (1, 1, 2, 3):
        save_report(path, dict(value=value))
    assert [json.loads((tmp_path / name).read_text())['value'] for name in ('knn.json.old', 'knn.json.old2', 'knn.json')] == [
        1, 2, 3,
    ]  # fmt: skip
    save_report(path, dict(value=4), replace=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ['knn.json', 'knn.json.old', 'knn.json.old2']


def test_every_benchmark_has_its_table(repository):
    """A report of any of them, read again from JSON, is a table on the page of its run."""
    said = ''.join(path.read_text() for path in (repository / 'mmkernel/cli').glob('*.py'))
    names = {*re.findall(r"\b(?:publish|report)\('(\w+)'", said), *re.findall(r"'(voc07\w+)'", said)}
    assert {'knn', 'linear', 'classify', 'semi_supervised', 'transfer'} <= names <= set(TABLES)


def test_a_report_becomes_a_table_again():
    score = dict(top1=61.5, top5=90.0)
    rows = [dict(name='raw pixels', width=256, scores={20: score, 200: score})]
    table = table_of(json.loads(json.dumps(report('knn', rows, 'a.py', None, 0))))
    assert [column.header for column in table.columns] == ['encoder', 'width', 'k = 20', 'k = 200']
    assert text(table) == text(probe_table(rows, 'knn: top-1/top-5 in percent'))
    rows = [dict(name='x', scores=dict(knn=FEW, linear=FEW))]
    assert text(table_of(report('compare', rows, 'a.py', None, 0))) == text(score_table(rows))
    for other in ([], {}, dict(benchmark='knn'), dict(benchmark='knn', rows=[1]), dict(benchmark='none', rows=rows)):
        assert table_of(other) is None
