"""Tables of the benchmarks that leave the data of pretraining: rows of ``evaluate`` with the function named in each."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mmkernel.evaluation.judges import METRICS
from mmkernel.evaluation.report import _table


def svm_table(rows: list[dict], title: str = 'VOC07 SVM: average precision in percent', widest: int = 6) -> Table:
    """:func:`voc_svm`: the mean (mAP: all points; mAP-11: 11 points), and each class where there are at most ``widest``."""
    classes = list(rows[0]['scores']['ap'])
    shown = classes if len(classes) <= widest else []
    table = _table(title, ['mAP', 'mAP-11', *shown], width=not shown)
    for row in rows:
        scores = row['scores']
        values = [scores['mAP'], scores['mAP_11'], *[scores['ap'][name] for name in shown]]
        width = [] if shown else [str(row['width'])]
        table.add_row(row['name'], *width, *[f'{value:.1f}' for value in values])
    return table


def low_shot_table(rows: list[dict], title: str = 'VOC07 low-shot SVM: mAP in percent, positives per class') -> Table:
    """:func:`low_shot_svm`: mean and sd over draws for each number of positives."""
    shots = list(rows[0]['scores'])
    table = _table(title, shots, width=False)
    for row in rows:
        cells = [row['scores'][shot] for shot in shots]
        table.add_row(row['name'], *[f'{cell["mean"]:.1f}±{cell["sd"]:.1f}' for cell in cells])
    return table


def transfer_table(rows: list[dict], title: str = 'transfer, linear: percent') -> Table:
    """:func:`transfer`, ``scores`` being {set: its answer}: one line per set, one column per encoder."""
    table = Table(title=title, title_justify='left', box=SIMPLE_HEAD, pad_edge=False)
    for column in ('set', 'metric'):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_column(row['name'], justify='right')
    for name, first in rows[0]['scores'].items():
        cells = [f'{row["scores"][name]["score"]:.1f}' for row in rows]
        table.add_row(name, METRICS[first['metric']], *cells)
    return table


def transformation_table(rows: list[dict], title: str = 'which transformation was applied: percent right') -> Table:
    """:func:`predict_transformations`: tasks down, encoders and their stages across."""
    table = Table(title=title, title_justify='left', box=SIMPLE_HEAD, pad_edge=False)
    table.add_column('task', no_wrap=True)
    stages = list(next(iter(rows[0]['scores'].values())))
    for column in ['most frequent', *[f'{row["name"]}\n{stage}' for row in rows for stage in stages]]:
        table.add_column(column, justify='right')
    for task, first in rows[0]['scores'].items():
        cells = [f'{row["scores"][task][stage]["top1"]:.1f}' for row in rows for stage in stages]
        table.add_row(task, f'{first[stages[0]]["majority"]:.1f}', *cells)
    return table
