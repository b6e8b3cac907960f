"""Results as a table for people and as JSON for programs."""

from __future__ import annotations

import errno
import itertools
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mmkernel.evaluation.judges import main_metrics

PACKAGES = ('torch', 'torchvision', 'timm', 'mmengine', 'numpy', 'scikit-learn')


def knn_table(rows: list[dict], title: str = 'weighted kNN') -> Table:
    """Rows of :func:`evaluate` with :func:`weighted_knn`: top-1/top-5 for every k."""
    counts = list(rows[0]['scores'])
    table = _table(title, [f'k = {count}' for count in counts])
    for row in rows:
        cells = [_pair(row['scores'][count]) for count in counts]
        table.add_row(row['name'], str(row['width']), *cells)
    return table


def probe_table(rows: list[dict], title: str = 'linear probe') -> Table:
    """Rows whose scores are ``{protocol: dict(top1=, top5=)}``, or map11 and map: the two figures for every protocol."""
    protocols = list(rows[0]['scores'])
    table = _table(title, protocols)
    for row in rows:
        cells = [_pair(row['scores'][name]) for name in protocols]
        table.add_row(row['name'], str(row['width']), *cells)
    return table


def score_table(rows: list[dict], title: str = 'accuracy in percent, labels per class') -> Table:
    """Rows of :func:`evaluate` with :func:`few_label_scores`: mean and sd over draws; fits a screen of 80 columns."""
    shots = list(rows[0]['scores']['knn'])
    columns = [f'{kind}\n{_shot(shot)}' for kind in ('kNN', 'linear') for shot in shots]
    table = _table(title, columns, width=False)
    for row in rows:
        table.add_row(row['name'], *[_cell(row['scores'][kind][shot]) for kind in ('knn', 'linear') for shot in shots])
    return table


def amount_table(rows: list[dict], title: str = 'fine-tuned, top-1 in percent') -> Table:
    """Rows whose scores are ``{amount of labels: dict(mean=, sd=, values=)}``."""
    amounts = list(rows[0]['scores'])
    table = _table(title, amounts, width=False)
    for row in rows:
        table.add_row(row['name'], *[_cell(row['scores'][amount]) for amount in amounts])
    return table


def _table(title: str, columns: list[str], width: bool = True) -> Table:
    table = Table(title=title, title_justify='left', box=SIMPLE_HEAD, pad_edge=False)
    table.add_column('encoder', no_wrap=True)
    for column in ['width', *columns] if width else columns:
        table.add_column(column, justify='right')
    return table


def _pair(score: dict) -> str:
    spread = f'±{score["sd"]:.1f}' if 'sd' in score else ''
    first, second = main_metrics(score)
    return f'{score[first]:.1f}{spread}/{score[second]:.1f}'


def _shot(shot: str) -> str:
    return 'all' if shot == 'all' else f'{shot} label{"s" * (shot != "1")}'


def _cell(score: dict) -> str:
    return f'{score["mean"]:.1f}±{score["sd"]:.1f}' if len(score['values']) > 1 else f'{score["mean"]:.1f}'


def report(benchmark: str, rows: list[dict], config: Any, checkpoint: Any, seed: int, **settings: Any) -> dict:
    """What a reader needs to believe a number and to make it again: paths of configs and checkpoints as given."""
    return dict(
        benchmark=benchmark,
        status='run here',
        config=config,
        checkpoint=checkpoint,
        seed=seed,
        settings=settings,
        rows=rows,
        versions={'python': platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        hardware=f'{platform.machine()}, {os.cpu_count()} cores',
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def save_report(path: str | Path, content: Any, replace: bool = False) -> Path:
    """Write JSON, making the folder; the file appears whole or not at all.

    Another result that lies there is kept as NAME.old; ``replace``: a page of the caller's own, written anew.
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
    """Rename a file or folder to the first free of NAME.old, NAME.old2, ...: nothing that others wrote is lost."""
    names = (path.with_name(f'{path.name}.old{n if n > 1 else ""}') for n in itertools.count(1))
    free = next(name for name in names if not name.exists())
    path.rename(free)
    return free


def writable(path: str | Path) -> Path:
    """``path`` with its folder made; OSError that names it if no file can come to lie there. Ask before hours of work."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, 'it is a folder')
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, 'its folder is read-only')
    except OSError as error:
        raise OSError(
            f"'{path}' cannot be written ({error.strerror}). Expected a file, such as results/knn.json."
        ) from error
    return path
