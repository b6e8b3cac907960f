"""Curves of runs: scalars read and joined over resumes, overlaid, before the band of a shipped recipe."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmkernel.visualization.style import GREY, colour, finish, new_figure, plain

# Beside the loss and its parts, which are named by the objective: what has a panel where it was measured, and its title.
PANELS = {
    'embedding/rank': 'effective rank of the embeddings',
    'embedding/std': 'spread of the embeddings (uniform: 1)',
    'embedding/mmd2': 'MMD² to uniform',
    'knn/top1': 'kNN accuracy, %',
    'probe/top1': 'accuracy of the online probe, %',
    'test/top1': 'test accuracy, %',
    'test/map11': 'test mAP-11, %',
    'waiting': 'time spent waiting for data, %',
}
# Words without '/' that are not parts of a loss.
OF_THE_STEP = 'step iter epoch lr base_lr momentum time data_time eta memory grad_norm images_per_second'.split()
MOST, COLUMNS = 12, 3  # panels
BAND = '#BBBBBB'


class Curve(NamedTuple):
    """One quantity of one run: where it was logged, in epochs (2.5: in the middle of the third), and its values."""

    epochs: np.ndarray
    steps: np.ndarray
    values: np.ndarray


class Band(NamedTuple):
    """One quantity of a recipe over seeds: mean, least and largest value of each epoch."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def read_scalars(run: str | Path) -> list[dict]:
    """Records of a run, oldest first: of a work folder (all its ``*/vis_data/scalars.json``) or of one such file.

    A run that was resumed has a log for each start. What an earlier start logged from the first step of a later one on was
    done again, and is left out; so is a last line that is not complete yet, as the run is going on.
    """
    run = Path(run)
    files = [run] if run.is_file() else sorted(run.glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(f'no scalars: looked for {run / "*/vis_data/scalars.json"}. Has the run started?')
    joined: list[dict] = []
    for file in files:
        records = []
        for line in file.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        if first := min((r['step'] for r in records if 'step' in r and 'epoch' in r), default=0):
            joined = [record for record in joined if record.get('step', 0) < first]
        joined += records
    return joined


def curves_of(run: str | Path | Iterable[dict]) -> dict[str, Curve]:
    """{quantity: its curve} of a work folder, a file of scalars, or records already read."""
    records = [r for r in (read_scalars(run) if isinstance(run, (str, Path)) else run) if 'step' in r]
    # the step within its epoch is not logged: an epoch has at least step / epoch steps, and the last line says nearly that
    length = max((math.ceil(r['step'] / r['epoch']) for r in records if r.get('epoch')), default=1)
    points: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for word, value in record.items():
            if word not in ('step', 'iter', 'epoch') and isinstance(value, (int, float)):
                points.setdefault(word, []).append((record['step'], value))
    arrays = {word: np.array(found, dtype=float).T for word, found in points.items()}
    return {word: Curve(steps / length, steps, values) for word, (steps, values) in arrays.items()}


def panels_of(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """The quantities worth a panel, in order: loss, its parts, embeddings, accuracies, waiting; at most 12."""
    words = list(dict.fromkeys(word for run in runs for word in run))
    parts = [word for word in words if '/' not in word and word not in (*OF_THE_STEP, *PANELS, 'loss')]
    # the weighted part where the objective does not log the plain one as well
    parts = [word for word in parts if word.removeprefix('loss_') == word or word.removeprefix('loss_') not in parts]
    return [word for word in ('loss', *parts, *PANELS) if word in words][:MOST]


@cache
def reference_curves() -> dict[str, Any]:
    """``dict(recipes={config: {quantity: Band}}, ...)``: measured by tools/reference_curves.py, which says how in it."""
    content = json.loads(Path(__file__).with_name('reference_curves.json').read_text())
    bands = {
        recipe: {word: Band(*(np.array(found[part]) for part in Band._fields)) for word, found in quantities.items()}
        for recipe, quantities in content['recipes'].items()
    }
    return {**content, 'recipes': bands}


def band_over(runs: Sequence[Mapping[str, Curve]], word: str) -> Band:
    """Mean, least and largest over ``runs`` of the mean over each epoch of a quantity that all of them logged alike."""
    epochs = [np.ceil(run[word].epochs - 1e-9).astype(int) for run in runs]
    if any(not np.array_equal(epochs[0], other) for other in epochs):
        raise ValueError(f"the runs did not log '{word}' at the same epochs.")
    means = np.array([[run[word].values[epochs[0] == e].mean() for e in np.unique(epochs[0])] for run in runs])
    middles = np.array([runs[0][word].epochs[epochs[0] == e].mean() for e in np.unique(epochs[0])])
    return Band(middles, means.mean(0), means.min(0), means.max(0))


def run_curves(
    runs: Mapping[str, str | Path | list[dict] | Mapping[str, Curve]],
    keys: Sequence[str] | None = None,
    bands: Mapping[str, Mapping[str, Band]] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """One panel per quantity, one line per run: ``runs`` maps a name to a work folder, a file, records or curves.

    ``keys``: the quantities; without, those of ``panels_of``. ``bands``: {legend: {quantity: Band}}, drawn behind the lines.
    """
    curves = {name: run if isinstance(run, Mapping) else curves_of(run) for name, run in runs.items()}
    keys = keys or panels_of(curves.values())
    known = sorted({word for run in curves.values() for word in run})
    if lost := [key for key in keys if key not in known]:
        raise KeyError(f"{' and '.join(curves)}: no scalar '{lost[0]}'; there is {', '.join(known) or 'none yet'}.")
    if not keys:
        raise ValueError(f'{" and ".join(curves)}: nothing is logged yet.')
    columns = min(len(keys), COLUMNS)
    rows = -(-len(keys) // columns)
    figure = new_figure(max(4.1 * columns, 5), 2.5 * rows + 0.4)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    handles: dict[str, Any] = {}
    for axes, key in zip(grid, keys, strict=False):
        draw_curves(
            axes, key, {name: run[key] for name, run in curves.items() if key in run}, list(curves), bands or {}
        )
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    last = max(float(axes.dataLim.x1) for axes in grid[: len(keys)])
    for axes in grid[: len(keys)]:
        axes.set_xlim(0, 1.02 * last)
    for axes in grid[len(keys) :]:
        axes.remove()
    names = [name for name in (*curves, *(bands or {})) if name in handles]
    legend = dict(loc='outside lower left', ncols=min(len(names), 3), frameon=False, fontsize=9)
    figure.legend([handles[name] for name in names], names, **legend)
    return finish(figure, path)


def draw_curves(
    axes: Axes, key: str, lines: Mapping[str, Curve], order: Sequence[str], bands: Mapping[str, Mapping[str, Band]]
) -> None:
    """One panel; ``order``: all runs of the figure, by which they are coloured. A single value of a run is a point."""
    several = len(bands) > 1
    for position, (name, band) in enumerate(bands.items()):
        if key in band:
            shade = colour(len(order) + position) if several else BAND
            x, mean, low, high = band[key]
            axes.fill_between(x, low, high, color=shade, alpha=0.25 if several else 0.5, linewidth=0, label=name)
            axes.plot(x, mean, color=shade if several else GREY, linewidth=0.9, linestyle='--')
    for name, curve in sorted(lines.items(), key=lambda item: -len(item[1].values)):  # the shorter on top
        few = dict(marker='o', markersize=3.5) if len(curve.values) < 5 else {}
        axes.plot(curve.epochs, curve.values, color=colour(order.index(name)), label=name, linewidth=1.4, **few)
    plain(axes, PANELS.get(key) or PANELS.get(f'embedding/{key}', key), 'epoch')
    shown = np.concatenate([curve.values for curve in lines.values()])
    shown = shown[np.isfinite(shown)]
    if len(shown) and shown.min() > 0 and shown.max() > 100 * shown.min():
        axes.set_yscale('log')
