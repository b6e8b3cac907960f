"""docs/cost.png: time and peak memory of each objective against width and batch, textbook form and ours.

python benchmarks/losses.py --sweep --json benchmarks/results/sweep.json && python benchmarks/plot.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
FORMS = {'textbook': dict(linestyle='--', marker='o', alpha=0.6), 'ours': dict(linestyle='-', marker='o')}
FIGURES = (
    ('seconds', 1, 'seconds, forward and backward'),
    ('peak_bytes', 2**20, 'peak memory (MiB), gradients included'),
)
AXES = (('q', 'n', 'width q'), ('n', 'q', 'batch n'))


def points(rows: list[dict], objective: str, form: str, axis: str, fixed: str, value: int, key: str) -> Iterator:
    """(x, figure) of the rows in which ``fixed`` has ``value``, by x."""
    for row in sorted(rows, key=lambda row: row['info'][axis]):
        if row['info']['objective'] == objective and row['info'][fixed] == value:
            figure = row['forms'].get(form, {}).get(key)
            if figure:
                yield row['info'][axis], figure


def most_common(rows: list[dict], key: str) -> int:
    """The value of n (or q) that the sweep holds while the other moves."""
    values = [row['info'][key] for row in rows]
    return max(set(values), key=values.count)


def draw(result: dict, file: Path) -> None:
    """Rows: time and memory. Columns: against q at one n, against n at one q."""
    rows = result['rows']
    figure, grid = plt.subplots(2, 2, figsize=(10, 7.5), sharey='row', layout='constrained')
    objectives = list(dict.fromkeys(row['info']['objective'] for row in rows))
    for column, (axis, fixed, label) in enumerate(AXES):
        value = most_common(rows, fixed)
        for line, (key, unit, title) in enumerate(FIGURES):
            panel = grid[line][column]
            for k, objective in enumerate(objectives):
                for form, style in FORMS.items():
                    xy = list(points(rows, objective, form, axis, fixed, value, key))
                    if xy:
                        x, y = zip(*xy, strict=True)
                        panel.plot(x, [v / unit for v in y], color=f'C{k}', markersize=3, **style)
            panel.set_xscale('log', base=2)
            panel.set_yscale('log')
            panel.set_xlabel(f'{label}, at {fixed} = {value}')
            panel.grid(True, which='major', alpha=0.3)
            if column == 0:
                panel.set_ylabel(title)
    handles = [plt.Line2D([], [], color=f'C{k}', label=name) for k, name in enumerate(objectives)]
    handles += [plt.Line2D([], [], color='0.3', label=form, **style) for form, style in FORMS.items()]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles), frameon=False)
    figure.suptitle(f'{result["hardware"]}, {result["threads"]} thread(s), float32', fontsize=9)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--json', type=Path, default=ROOT / 'benchmarks/results/sweep.json')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/cost.png')
    args = parser.parse_args(argv)
    draw(json.loads(args.json.read_text()), args.out)


if __name__ == '__main__':
    main()
