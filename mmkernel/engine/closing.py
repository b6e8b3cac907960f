"""The last paragraph of a run: where everything lies, and what to do next."""

import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmkernel.engine.hooks import unwrap
from mmkernel.engine.log_line import duration
from mmkernel.evaluation import CRITERIA
from mmkernel.evaluation.classifier_metrics import HISTORY, METRICS, accuracy_history, metric_of

NEAREST = 'best_knn'  # in the hub: dict(score, epoch) of the best accuracy of KNNMonitorHook


def closing(runner: Any) -> str:
    """Folder; in it last and best checkpoint, logs and pictures that are there; and commands that go on from them."""
    last, best = runner.folder.last_good(), dict(best_files(runner))
    rows = [('folder', _short(runner.work_dir)), ('last', last.name if last else 'no checkpoint was written')]
    rows += [('best', f'{file}: {why}') for file, why in best.items()]
    rows += [(name, path) for name, path in _written(runner)]
    done = f'Done: {runner.epoch} of {runner.max_epochs} epochs{_duration(runner)}.'
    lines = [done, *(f'  {name:<8} {path}' for name, path in rows)]
    if commands := next_commands(runner, last):
        lines += ['Next:', *(f'  {command}' for command in commands)]
    return '\n'.join(lines)


def next_commands(runner: Any, checkpoint: Path | None) -> list[str]:
    """Of an encoder its accuracy and its diagnosis, and the curves of the run."""
    model, file = unwrap(runner.model), None if checkpoint is None else shlex.quote(_short(checkpoint))
    labelled = 'train' in (runner.cfg.get('evaluation') or {})
    data = '' if labelled else ' --train LABELLED_FOLDER --test LABELLED_FOLDER'
    found = []
    if file and hasattr(model, 'extract'):
        found += [f'mmkernel knn {file}{data}', f'mmkernel linear {file}{data}']
        found += [f'mmkernel diagnose {file}'] if getattr(model, 'neck', None) is not None else []
    return [*found, f'mmkernel plot {shlex.quote(_short(runner.work_dir))}']


def best_files(runner: Any) -> Iterator[tuple[str, str]]:
    """(file, why it is the best); an epoch whose file was not kept is named without one."""
    info = runner.message_hub.runtime_info
    for criterion in CRITERIA:
        record, name = info.get(f'best_{criterion}'), f'best_{criterion}.pth'
        if record and Path(runner.work_dir, name).is_file():
            yield name, f'by {criterion}, which needs no labels, after epoch {record["epoch"]}'
    scores = []
    if record := info.get(NEAREST):
        scores.append((record['epoch'], f'kNN {record["score"]:.1f} %'))
    if info.get(HISTORY):
        metric = metric_of(runner.cfg)
        record = accuracy_history(runner.message_hub, metric)['best']
        scores.append((record['epoch'], f'{METRICS[metric]} {record[metric]:.2f} %'))
    for epoch, score in scores:
        name = f'epoch_{epoch}.pth'
        kept = Path(runner.work_dir, name).is_file()
        yield (name, score) if kept else (f'epoch {epoch}', f'{score} (its file was not kept)')


def best_so_far(runner: Any, epoch: int) -> str:
    """' the best so far (kNN 97.8 %)' where the kNN monitor says so of ``epoch``, else ''."""
    record = runner.message_hub.runtime_info.get(NEAREST)
    return f', the best so far (kNN {record["score"]:.1f} %)' if record and record['epoch'] == epoch else ''


def _written(runner: Any) -> Iterator[tuple[str, str]]:
    logs, folder = Path(runner.log_dir), Path(runner.work_dir)
    places = dict(
        log=f'{logs.name}.log', scalars='vis_data/scalars.json', table='vis_data/scalars.csv', views='views.png'
    )
    found = {name: logs / place for name, place in places.items()} | dict(report=folder / 'report.html')
    yield from ((name, os.path.relpath(path, folder)) for name, path in found.items() if path.is_file())


def _duration(runner: Any) -> str:
    begun = time.mktime(time.strptime(runner.timestamp[:15], '%Y%m%d_%H%M%S'))
    return f' in {duration(time.time() - begun)}'


def _short(path: str | Path) -> str:
    """Relative to where the user is, if it lies below."""
    text = str(path)
    below = os.path.relpath(text) if os.path.isabs(text) else text
    return text if below.startswith('..') else below
