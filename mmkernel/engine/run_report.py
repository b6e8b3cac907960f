"""``report.html`` of a work folder: what a run did, in one file that opens without a network."""

import json
import shlex
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import nn

from mmkernel.checks import check_numbers, words_of
from mmkernel.engine.checkpoint import epoch_files
from mmkernel.engine.config_file import read_config, recipe_named, recipes_of
from mmkernel.engine.hooks import dataset_of, look_alone, unwrap
from mmkernel.engine.resume_check import differing, in_words, resolved, versions
from mmkernel.evaluation import diagnose_cloud, sample_cloud, sample_source
from mmkernel.evaluation.report import table_of
from mmkernel.registry import HOOKS
from mmkernel.writing import set_aside
from mmkernel.zoo.catalogue import root
from mmkernel.zoo.plain_config import without_machine

NAME = 'report.html'
LARGEST = 1 << 23  # bytes of a JSON file that is looked into


@HOOKS.register_module()
class ReportHook(Hook):
    """``report.html`` in the work folder when a run has ended: verdict, curves, changes of the recipe, views, map, benchmarks.

    Process 0 makes it after the last checkpoint, from ``images`` evaluation images: it costs three forward passes of each and
    some seconds. A run that has taken fewer than ``least_steps`` gets none by itself; ``mmkernel plot FOLDER --report`` makes one
    of any. What goes wrong here is a line in the log: the run has succeeded. Off: ``default_hooks=dict(report=None)``.
    """

    priority = 'LOWEST'
    writes = (NAME,)

    def __init__(self, images: int = 1000, least_steps: int = 50) -> None:
        check_numbers('ReportHook', whole=True, least=3, images=images)
        check_numbers('ReportHook', whole=True, zero=True, least_steps=least_steps)
        self.images, self.least_steps = images, least_steps

    def after_run(self, runner: Any) -> None:
        if runner.iter >= self.least_steps and runner.iter > (runner.began or 0):
            look_alone(unwrap(runner.model), lambda: self._write(runner))

    def _write(self, runner: Any) -> None:
        folder, began = Path(runner.work_dir), time.perf_counter()
        meta = dict(
            epoch=runner.epoch, iter=runner.iter, seed=runner.seed, world_size=runner.world_size, versions=versions(),
            images=len(dataset_of(runner)), time=time.time(),
        )  # fmt: skip
        try:
            path = write_report(folder, runner.cfg, unwrap(runner.model), meta, self.images)
        except Exception as error:  # whatever it is, the run is done and its checkpoints are written
            again = f'mmkernel plot {folder} --report tries again'
            return runner.logger.warning(f'No {NAME}: {type(error).__name__}: {words_of(error)} ({again}).')
        runner.logger.info(f'Report: {path} ({time.perf_counter() - began:.0f} s).')


def write_report(
    folder: str | Path,
    cfg: Any,
    model: nn.Module | None,
    meta: Mapping[str, Any],
    images: int = 1000,
    out: str | Path | None = None,
    recipe: str = '',
) -> Path:
    """Write the page of the run in ``folder`` to ``out`` or FOLDER/report.html. An earlier report is replaced, another file kept.

    ``model``: with the weights of the run, in any mode; without one the page says nothing of embeddings. ``meta``: of its
    checkpoint, or what is known of that. ``recipe``: that the run is compared with, if the copy of its config does not name it.
    What cannot be had is said on the page.
    """
    from mmkernel.visualization.html_page import MADE_BY
    from mmkernel.visualization.report_page import report_page

    folder = Path(folder).resolve()
    path = Path(out) if out else folder / NAME
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the page says what is missing
        report = gather(folder, cfg, meta, recipe)
        report = replace(report, **embeddings(cfg, model, images, report.missing))
        if path.is_file() and MADE_BY not in path.read_text(encoding='utf-8', errors='replace')[:200]:
            set_aside(path)
        return report_page(report, path)


def gather(folder: Path, cfg: Any, meta: Mapping[str, Any], recipe: str = '') -> Any:
    """A ``RunReport`` of all that needs no model."""
    from mmkernel.visualization.curves import curves_of
    from mmkernel.visualization.report_page import RunReport

    copy, missing = folder / 'config.py', {}
    recipe = recipe or recipe_named(copy)
    try:
        curves = curves_of(folder)
    except FileNotFoundError as error:
        curves, missing['Curves'] = {}, str(error)
    both = [read_config(root() / recipe).to_dict(), cfg.to_dict()] if recipe else []
    differences = differing('', *(resolved(without_machine(values)) for values in both)) if recipe else ()
    files = [path for path in epoch_files(folder) if path.is_file()]
    last = max(files, key=lambda path: path.stat().st_mtime, default=None)
    return RunReport(
        name=f'{folder.parent.name}/{folder.name}',
        about=_facts(folder, recipe, meta, cfg, last),
        curves=curves,
        bands=bands_of(recipe),
        recipe=recipe,
        changes=[(key, in_words(old), in_words(new)) for key, old, new in differences],
        views=next(iter(sorted(folder.glob('*/views.png'), reverse=True)), None),
        tables=tables_in(folder),
        commands=_commands(folder, last),
        config=copy.read_text(errors='replace') if copy.is_file() else '',
        missing=missing,
    )


def _facts(folder: Path, recipe: str, meta: Mapping[str, Any], cfg: Any, last: Path | None) -> dict[str, Any]:
    epochs, whole = meta.get('epoch'), (cfg.get('train_cfg') or {}).get('max_epochs')
    processes = meta.get('world_size') or 1
    found = dict(
        recipe=recipe or None,
        trained=None if epochs is None else f'{epochs:,} of {whole or "?"} epochs, {meta.get("iter") or 0:,} steps',
        images=f'{meta["images"]:,}' if meta.get('images') else None,
        ended=time.strftime('%Y-%m-%d %H:%M', time.localtime(meta['time'])) if meta.get('time') else None,
        seed=meta.get('seed'),
        processes=processes if processes > 1 else None,
        checkpoint=last and str(last),
        versions=', '.join(f'{name} {version}' for name, version in (meta.get('versions') or {}).items()),
    )
    return {name: value for name, value in found.items() if value not in (None, '')}


def _commands(folder: Path, last: Path | None) -> dict[str, str]:
    work, file = (shlex.quote(str(path)) for path in (folder, last))
    commands = {'Beside another run:': f'mmkernel plot {work} OTHER_FOLDER'}
    if last is not None:
        commands |= {
            'How good it is where there are labels; then this page with the tables:': (
                f'mmkernel knn {file}\nmmkernel linear {file}\nmmkernel plot {work} --report'
            ),
            'The encoder for other programs:': f'mmkernel export {file} --to timm',
        }
    return commands


def bands_of(recipe: str) -> dict[str, Any]:
    """{legend: {quantity: band}} of a shipped recipe, or of the nearest that it inherits from; {} if none was measured."""
    from mmkernel.visualization.curves import reference_curves

    measured = reference_curves()
    near = [name for name in (recipes_of(root() / recipe) if recipe else ()) if name in measured['recipes']]
    return {f'{name}, {len(measured["seeds"])} seeds': measured['recipes'][name] for name in near[:1]}


def tables_in(folder: Path) -> list[tuple[str, Any]]:
    """(file and checkpoint, table) of every report of a benchmark in ``folder``."""
    found = []
    for path in sorted(folder.glob('*.json')):
        if path.stat().st_size > LARGEST:
            continue
        try:
            content = json.loads(path.read_text(errors='replace'))
        except (ValueError, RecursionError):
            continue  # of another program
        if (table := table_of(content)) is not None:
            found.append((f'{path.name}: {content.get("checkpoint") or "no checkpoint"}', table))
    return found


def embeddings(cfg: Any, model: nn.Module | None, images: int, missing: Mapping[str, str]) -> dict[str, Any]:
    """The parts of a report that look at embeddings; where they cannot be had, the reason."""
    try:
        if model is None:
            raise ValueError('there is no checkpoint yet')
        if getattr(getattr(model, 'neck', None), 'spread', False):
            raise ValueError('the neck lies on several processes')
        source = sample_source(cfg)
        cloud = sample_cloud(model, cfg, images, source)
        if min(cloud.z.shape) < 3 or not all(
            torch.isfinite(part).all() for part in (cloud.h, cloud.z, *(cloud.views or ()))
        ):
            raise ValueError('there are fewer than three images, or embeddings that are not finite')
        return dict(diagnosis=diagnose_cloud(cloud, model), cloud=cloud, source=source)
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        return dict(missing={**missing, 'Diagnosis': f'Embeddings are not shown: {words_of(error)}'})
