"""Measure the curves of shipped recipes over seeds: the bands that ``mmkernel plot`` draws behind a run.

python tools/reference_curves.py [--configs CONFIG ...] [--seeds 0 1 2] [--out FOLDER]

Writes mmkernel/visualization/reference_curves.json: of each quantity its mean, least and largest value over the seeds, epoch by
epoch. Runs that are finished in --out, of the same config and seed, are not repeated. kNN is measured after every epoch, which
changes no weight.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mmkernel.cli import one_line
from mmkernel.evaluation import report, save_report
from mmkernel.visualization.curves import Band, band_over, curves_of, panels_of

sys.path.append(str(Path(__file__).resolve().parent / 'benchmarks'))
from side_by_side import Run, pretrain, shown  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / 'mmkernel/visualization/reference_curves.json'
NAMES = (
    'sfrik/digits_L1',
    'sfrik/digits_L2',
    'sfrik/digits_L3',
    'kernels/digits_rbf',
    'vicreg/digits',
)
OF_THE_MACHINE = ('waiting',)
DIGITS = 4  # significant ones

console = Console(highlight=False)


def watched(config: Path, seed: int, folder: Path) -> Run:
    """The run of a recipe, with kNN after every epoch."""
    name = f'{config.parent.name}/{config.stem}'
    own = folder / name / 'watched.py'
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(f'_base_ = {str(config)!r}\ndefault_hooks = dict(knn=dict(interval=1))\n')
    return Run(f'{name} seed {seed}', own, folder / name / f'{seed}', seed)


def rounded(band: Band) -> dict[str, list[float]]:
    return {part: [float(f'{x:.{DIGITS}g}') for x in values] for part, values in zip(Band._fields, band, strict=True)}


def bands(runs: list[Run]) -> dict[str, Any]:
    """{quantity: band} over the finished runs of one recipe."""
    curves = [curves_of(run.folder) for run in runs]
    words = [word for word in panels_of(curves) if word not in OF_THE_MACHINE]
    return {word: rounded(band_over(curves, word)) for word in words}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    configs = [ROOT / f'configs/{name}.py' for name in NAMES]
    parser.add_argument('--configs', type=Path, nargs='+', default=configs, help='recipes, of a minute or so each')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/reference_curves', help='folder of the runs')
    parser.add_argument('--json', type=Path, default=FILE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    configs = [config.resolve() for config in args.configs]
    runs = {config: [watched(config, seed, args.out.resolve()) for seed in args.seeds] for config in configs}
    pretrain([run for group in runs.values() for run in group if not run.finished], console)
    recipes = {config.relative_to(ROOT).as_posix(): bands(group) for config, group in runs.items()}
    console.print(f'written: {shown(write(recipes, args.seeds, args.json))}')


def write(recipes: dict[str, Any], seeds: list[int], path: Path) -> Path:
    """The file: the bands, and how they were measured."""
    command = 'python tools/reference_curves.py'
    about = report('reference_curves', [], list(recipes), None, seeds[0], command=command, threads=1)
    del about['rows'], about['seed'], about['checkpoint']
    return save_report(path, {**about, 'seeds': seeds, 'recipes': recipes}, replace=True)


if __name__ == '__main__':
    with one_line('reference_curves.py'):
        main()
