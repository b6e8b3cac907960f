"""Results of benchmarks as tables and as JSON reports, and writing of files without loss of existing ones."""

import errno
import itertools
import json
import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mmkernel.evaluation.classifier_metrics import METRICS, main_metrics


def probe_table(rows: list[dict], title: str = 'linear probe') -> Table:
    """Rows whose scores are ``{protocol or k: dict(top1=, top5=)}``, or map11 and map: the two figures for each."""
    names = {f'k = {key}' if isinstance(key, int) else key: key for key in rows[0]['scores']}
    return _by_encoder(title, rows, {name: lambda s, key=key: _two_figures(s[key]) for name, key in names.items()})


def score_table(rows: list[dict], title: str = 'accuracy in percent, labels per class') -> Table:
    """Rows of :func:`evaluate` with :func:`few_label_scores`: mean and sd over draws; fits a screen of 80 columns."""
    columns = {}
    for kind, short in (('knn', 'kNN'), ('linear', 'linear')):
        for shot in rows[0]['scores'][kind]:
            words = 'all' if shot == 'all' else f'{shot} label{"s" * (shot != "1")}'
            columns[f'{short}\n{words}'] = lambda s, kind=kind, shot=shot: _mean_and_sd(s[kind][shot])
    return _by_encoder(title, rows, columns, width=False)


def amount_table(rows: list[dict], title: str = 'fine-tuned, top-1 in percent') -> Table:
    """Rows whose scores are ``{amount of labels: dict(mean=, sd=, values=)}``: :func:`semi_supervised`, :func:`low_shot_svm`."""
    columns = {amount: lambda s, amount=amount: _mean_and_sd(s[amount]) for amount in rows[0]['scores']}
    return _by_encoder(title, rows, columns, width=False)


def svm_table(rows: list[dict], title: str = 'VOC07 SVM: average precision in percent') -> Table:
    """:func:`voc_svm`: the mean (mAP: all points; mAP-11: 11 points), and each class where there are at most six."""
    columns = {'mAP': lambda s: f'{s["mAP"]:.1f}', 'mAP-11': lambda s: f'{s["mAP_11"]:.1f}'}
    classes = list(rows[0]['scores']['ap'])
    shown = classes if len(classes) <= 6 else []
    columns |= {name: lambda s, name=name: f'{s["ap"][name]:.1f}' for name in shown}
    return _by_encoder(title, rows, columns, width=not shown)


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


def _by_encoder(
    title: str, rows: list[dict], columns: Mapping[str, Callable[[dict], str]], width: bool = True
) -> Table:
    """One line per encoder: its name, the width of its features, and of its scores what each column makes of them."""
    cells = {'width': lambda row: str(row['width'])} if width else {}
    cells |= {name: lambda row, cell=cell: cell(row['scores']) for name, cell in columns.items()}
    return _table(title, ['encoder', *cells], [[row['name'], *[cell(row) for cell in cells.values()]] for row in rows])


def _table(title: str, head: list[str], lines: list[list[str]], words: int = 1) -> Table:
    """The first ``words`` columns hold text, the others numbers."""
    table = Table(title=title, title_justify='left', box=SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(head):
        table.add_column(name, no_wrap=position < words, justify='left' if position < words else 'right')
    for line in lines:
        table.add_row(*line)
    return table


def _two_figures(score: dict) -> str:
    spread = f'±{score["sd"]:.1f}' if 'sd' in score else ''
    first, second = main_metrics(score)
    return f'{score[first]:.1f}{spread}/{score[second]:.1f}'


def _mean_and_sd(score: dict) -> str:
    return f'{score["mean"]:.1f}±{score["sd"]:.1f}' if len(score['values']) > 1 else f'{score["mean"]:.1f}'


def report(benchmark: str, rows: list[dict], config: Any, checkpoint: Any, seed: int, **settings: Any) -> dict:
    """The content of a report, with all that is needed to repeat it; paths of configs and checkpoints as given."""
    packages = ('torch', 'torchvision', 'timm', 'mmengine', 'numpy', 'scikit-learn')
    return dict(
        benchmark=benchmark, status='run here', config=config, checkpoint=checkpoint, seed=seed, settings=settings, rows=rows,
        versions={'python': platform.python_version(), **{name: metadata.version(name) for name in packages}},
        hardware=f'{platform.machine()}, {os.cpu_count()} cores',
    )  # fmt: skip


def save_report(path: str | Path, content: Any, replace: bool = False) -> Path:
    """Write JSON, making the folder; the file appears whole or not at all.

    An earlier file with other content is kept as NAME.old; with ``replace`` it is overwritten.
    """
    path, text = writable(path), json.dumps(content, indent=1) + '\n'
    partial = path.with_name(path.name + '.partial')
    try:
        partial.write_text(text)
        if not replace and path.is_file() and path.read_text(errors='replace') != text:
            set_aside(path)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def set_aside(path: Path) -> Path:
    """Rename a file or folder to the first free of NAME.old, NAME.old2, ..., so that no earlier result is lost."""
    names = (path.with_name(f'{path.name}.old{n if n > 1 else ""}') for n in itertools.count(1))
    return path.rename(next(name for name in names if not name.exists()))


def writable(path: str | Path) -> Path:
    """``path``, its folder made; OSError that names it if no file can be written there. Call it before hours of work."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, 'it is a folder')
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, 'its folder is read-only')
    except OSError as error:
        raise OSError(f"'{path}' cannot be written ({error.strerror}). Expected a file: results/knn.json.") from error
    return path
