"""Results of benchmarks as tables and as JSON reports."""

import json
import os
import platform
from functools import reduce
from importlib import metadata
from operator import getitem
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mmkernel.evaluation.classifier_metrics import METRICS, main_metrics, metrics_heading
from mmkernel.writing import replacing, set_aside, writable


def probe_table(rows: list[dict], title: str = 'linear probe') -> Table:
    """Rows whose scores are ``{protocol or k: dict(top1=, top5=)}``, or map11 and map: the two figures for each."""
    return _by_encoder(title, rows, {f'k = {k}' if isinstance(k, int) else k: (k,) for k in rows[0]['scores']})


def score_table(rows: list[dict], title: str = 'accuracy in percent, labels per class') -> Table:
    """Rows of :func:`evaluate` with :func:`few_label_scores`: mean and sd over draws; fits a screen of 80 columns."""
    columns = {}
    for kind, short in (('knn', 'kNN'), ('linear', 'linear')):
        for shot in rows[0]['scores'][kind]:
            words = 'all' if shot == 'all' else f'{shot} label{"s" * (shot != "1")}'
            columns[f'{short}\n{words}'] = kind, shot
    return _by_encoder(title, rows, columns, width=False)


def amount_table(rows: list[dict], title: str = 'fine-tuned, top-1 in percent') -> Table:
    """Rows whose scores are ``{amount of labels: dict(mean=, sd=, values=)}``: :func:`semi_supervised`, :func:`low_shot_svm`."""
    return _by_encoder(title, rows, {amount: (amount,) for amount in rows[0]['scores']}, width=False)


def svm_table(rows: list[dict], title: str = 'VOC07 SVM: average precision in percent') -> Table:
    """:func:`voc_svm`: the mean (mAP: all points; mAP-11: 11 points), and each class where there are at most six."""
    classes = rows[0]['scores']['ap'] if len(rows[0]['scores']['ap']) <= 6 else ()
    columns = {'mAP': ('mAP',), 'mAP-11': ('mAP_11',), **{name: ('ap', name) for name in classes}}
    return _by_encoder(title, rows, columns, width=not classes)


def transfer_table(rows: list[dict], title: str = 'transfer, linear: percent') -> Table:
    """:func:`transfer`, ``scores`` being {set: its answer}: one line per set, one column per encoder."""
    lines = [
        [name, METRICS[first['metric']], *[f'{row["scores"][name]["score"]:.1f}' for row in rows]]
        for name, first in rows[0]['scores'].items()
    ]
    return _table(title, ['set', 'metric', *[row['name'] for row in rows]], lines, words=2)


def transformation_table(rows: list[dict], title: str = 'which transformation was applied: percent right') -> Table:
    """:func:`predict_transformations`: tasks down, encoders and their stages across."""
    stages = list(next(iter(rows[0]['scores'].values())))
    across = [(row, stage) for row in rows for stage in stages]
    lines = [
        [task, f'{first[stages[0]]["majority"]:.1f}', *[f'{row["scores"][task][stage]["top1"]:.1f}' for row, stage in across]]
        for task, first in rows[0]['scores'].items()
    ]  # fmt: skip
    return _table(title, ['task', 'most frequent', *[f'{row["name"]}\n{stage}' for row, stage in across]], lines)


# By the word under 'benchmark' in a report.
TABLES = dict(
    knn=probe_table, linear=probe_table, classify=probe_table, quickstart=score_table, compare=score_table,
    semi_supervised=amount_table, voc07_svm=svm_table, voc07_low_shot_svm=amount_table, transfer=transfer_table,
    transformation=transformation_table,
)  # fmt: skip


def table_of(content: Any) -> Table | None:
    """The table of a report read from JSON; None if it is no such report."""
    if not (isinstance(content, dict) and content.get('rows') and content.get('benchmark') in TABLES):
        return None
    try:
        rows = [{**row, 'scores': {_number(k): score for k, score in row['scores'].items()}} for row in content['rows']]
        make = TABLES[name := content['benchmark']]
        first = next(iter(rows[0]['scores'].values()))
        return make(rows, f'{name}: {metrics_heading(first)} in percent') if make is probe_table else make(rows)
    except (KeyError, TypeError, AttributeError, ValueError):
        return None  # of another version, or another program


def _number(key: str) -> int | str:
    """JSON has no keys that are numbers."""
    return int(key) if key.isdecimal() else key


def _by_encoder(title: str, rows: list[dict], columns: dict[str, tuple], width: bool = True) -> Table:
    """One line per encoder: its name, the width of its features, and a cell per column; {heading: keys of the score}."""
    about, lines = ['width'] * width, []
    for row in rows:
        cells = [_cell(reduce(getitem, keys, row['scores'])) for keys in columns.values()]
        lines.append([row['name'], *[str(row[key]) for key in about], *cells])
    return _table(title, ['encoder', *about, *columns], lines)


def _table(title: str, head: list[str], lines: list[list[str]], words: int = 1) -> Table:
    """The first ``words`` columns hold text, the others numbers."""
    table = Table(title=title, title_justify='left', box=SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(head):
        table.add_column(name, no_wrap=position < words, justify='left' if position < words else 'right')
    for line in lines:
        table.add_row(*line)
    return table


def _cell(score: float | dict) -> str:
    """'61.5', '61.5/90.0' of two metrics, '61.5±0.4' of several runs."""
    if isinstance(score, float):
        return f'{score:.1f}'
    spread = f'±{score["sd"]:.1f}' if 'sd' in score and len(score['values']) > 1 else ''
    if 'mean' in score:
        return f'{score["mean"]:.1f}{spread}'
    first, second = main_metrics(score)
    return f'{score[first]:.1f}{spread}/{score[second]:.1f}'


def report(benchmark: str, rows: list[dict], config: Any, checkpoint: Any, seed: int, **settings: Any) -> dict:
    """The content of a report, with all that is needed to repeat it; paths of configs and checkpoints as given."""
    packages = ('torch', 'torchvision', 'timm', 'mmengine', 'numpy', 'scikit-learn')
    return dict(
        benchmark=benchmark, status='measured by us', config=config, checkpoint=checkpoint, seed=seed, settings=settings, rows=rows,
        versions={'python': platform.python_version(), **{name: metadata.version(name) for name in packages}},
        hardware=f'{platform.machine()}, {os.cpu_count()} cores',
    )  # fmt: skip


def save_report(path: str | Path, content: Any, replace: bool = False) -> Path:
    """Write JSON, making the folder; the file appears whole or not at all.

    An earlier file with other content is kept as NAME.old; with ``replace`` it is overwritten.
    """
    path, text = writable(path), json.dumps(content, indent=1) + '\n'
    with replacing(path) as partial:
        partial.write_text(text)
        if not replace and path.is_file() and path.read_text(errors='replace') != text:
            set_aside(path)
    return path
