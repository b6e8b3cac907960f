"""Curves of one or several runs, from the JSON-lines scalars that every run writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmkernel.visualization.style import colour, finish, new_figure, plain


def read_scalars(run: str | Path) -> list[dict]:
    """Records of a run, oldest first: a work folder (all its ``*/vis_data/scalars.json``) or one such file.

    A last line that is not complete yet (the run is going on) is left out.
    """
    run = Path(run)
    files = [run] if run.is_file() else sorted(run.glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(
            f'no scalars in {run}: looked for {run / "*/vis_data/scalars.json"}. Has the run started?'
        )
    records = []
    for file in files:
        for line in file.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return records


def loss_curves(
    runs: Mapping[str, str | Path | list[dict]], keys: Sequence[str] = ('loss',), path: str | Path | None = None
) -> Figure:
    """One panel per key, one line per run; ``runs`` maps a name to a work folder, a file or records already read."""
    figure = new_figure(4.2 * len(keys), 3.2)
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        draw_curves(axes, runs, key)
    return finish(figure, path)


def draw_curves(axes: Axes, runs: Mapping[str, str | Path | list[dict]], key: str = 'loss') -> None:
    for position, (name, run) in enumerate(runs.items()):
        records = run if isinstance(run, list) else read_scalars(run)
        points = [(record['step'], record[key]) for record in records if key in record]
        if not points:
            found = sorted({word for record in records for word in record})
            raise KeyError(f"run '{name}' has no scalar '{key}'; it has {', '.join(found) or 'none yet'}.")
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=colour(position), label=name, linewidth=1.2)
    plain(axes, key, 'step')
    axes.legend(frameon=False, fontsize=8)
