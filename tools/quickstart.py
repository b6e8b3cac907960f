"""Pretrain with kernels of order 1, 2 and 3 on hand-written digits, and compare the encoders with raw pixels.

bash tools/quickstart.sh        (or, where mmkernel is installed: python tools/quickstart.py)

Writes plots, checkpoints and results.json to work_dirs/quickstart, the next time to quickstart_2. Exits 1 if the paper's
finding does not show:
L = 3 beats raw pixels by 10 points (kNN, one label per class), and L = 1 is worse than raw pixels, L = 2 and L = 3.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console
from rich.markup import escape
from threadpoolctl import threadpool_limits
from torch import nn

from mmkernel.engine import load_checkpoint
from mmkernel.evaluation import (
    evaluate,
    extract_features,
    few_label_scores,
    report,
    save_report,
    score_table,
    untrained_encoder,
)
from mmkernel.registry import DATASETS
from mmkernel.visualization import (
    embedding_map,
    overview,
    planar_map,
    read_scalars,
    run_curves,
    spectrum_plot,
    view_grid,
)

sys.path.append(str(Path(__file__).resolve().parent / 'benchmarks'))
from side_by_side import Run, pretrain, progress_bars, shown, unused_folder  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = tuple(ROOT / f'configs/sfrik/digits_L{order}.py' for order in (1, 2, 3))
RAW, UNTRAINED = 'raw pixels', 'untrained encoder'
MARGIN = 10.0  # points that L = 3 must be ahead of raw pixels

console = Console()


def named_run(config: Path, out: Path, seed: int) -> Run:
    """digits_L3.py -> 'L = 3'."""
    order = re.search(r'_L(\d+)$', config.stem)
    return Run(f'L = {order[1]}' if order else config.stem, config, out / config.stem, seed)


def encoder(run: Run) -> nn.Module:
    model = untrained_encoder(run.cfg)
    load_checkpoint(model, run.checkpoint())
    return model


def draw(runs: list[Run], encoders: dict[str, nn.Module], rows: list[dict], out: Path) -> list[Path]:
    """The plots; the first and the last run are set against each other."""
    first, last = runs[0], runs[-1]
    part = last.cfg.evaluation
    settings = {key: part[key] for key in ('transform', 'batch_size') if key in part} | dict(num_workers=0)
    clouds = {
        run.name: extract_features(encoders[run.name], part.train, stage='neck', **settings)[0]
        for run in dict.fromkeys((first, last))
    }
    features, labels = extract_features(encoders[last.name], part.test, **settings)
    classes = DATASETS.build(part.test).classes
    points = planar_map(features)
    title = f'test images, features of {last.name} (t-SNE)'
    files = {name: out / f'{name}.png' for name in ('views', 'losses', 'spectrum', 'map', 'overview')}
    view_grid(last.views, range(6), epochs=(0, 1, 2), path=files['views'])
    scalars = {run.name: read_scalars(run.folder) for run in runs}
    logged = [{key for record in records for key in record} for records in scalars.values()]
    run_curves(
        scalars, [key for key in ('loss', 'alignment', 'kernel') if all(key in keys for keys in logged)],
        path=files['losses'],
    )  # fmt: skip
    spectrum_plot(clouds, path=files['spectrum'])
    embedding_map(features, labels, classes, points=points, title=title, path=files['map'])
    overview(last.views, clouds, points, labels, rows, classes, title, path=files['overview'])
    return list(files.values())


def verdict(rows: list[dict]) -> bool | None:
    """Print the finding, claim by claim; False if one does not hold, None if the rows to compare are not there."""
    score = {row['name']: row['scores']['knn']['1']['mean'] for row in rows}
    if not {RAW, 'L = 1', 'L = 2', 'L = 3'} <= set(score):
        console.print('Other configs than L = 1, 2, 3: the check of the finding is left out.')
        return None
    claims = {f'L = 3 beats raw pixels by {MARGIN:.0f} points': (score['L = 3'] - score[RAW], MARGIN)}
    claims |= {
        f'L = 1 is worse than {other}': (score[other] - score['L = 1'], 0.1) for other in (RAW, 'L = 2', 'L = 3')
    }
    for claim, (gap, least) in claims.items():
        word = '[green]yes[/]' if gap >= least else '[red]no[/]'
        console.print(f'  {word}: {claim} (by {gap:.1f}; kNN, 1 label per class)', highlight=False)
    return all(gap >= least for gap, least in claims.values())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--configs', type=Path, nargs='+', default=list(DEFAULT), help='configs to pretrain and compare'
    )
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/quickstart', help='folder of everything written')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def main() -> int:
    args, start = arguments(), time.monotonic()
    torch.set_num_threads(1)
    out = unused_folder(args.out.resolve())
    if out != args.out.resolve():
        text = f'{shown(args.out.resolve())} holds an earlier result, which stays; this one goes to {shown(out)}.'
        console.print(text, highlight=False, soft_wrap=True)
    runs = [named_run(config.resolve(), out, args.seed) for config in args.configs]
    pretrain(runs, console)

    cfg: Config = runs[-1].cfg
    cfg.evaluation.num_workers = 0
    encoders = {UNTRAINED: untrained_encoder(cfg, args.seed), **{run.name: encoder(run) for run in runs}}
    with progress_bars(console) as bar:
        task = bar.add_task('evaluating on held-out images', total=1 + len(encoders))
        tick = lambda _, total: bar.advance(task, 1 / total)  # noqa: E731
        with threadpool_limits(1):  # hundreds of fits of a few rows each: more threads only get in each other's way
            rows = evaluate(cfg, encoders, partial(few_label_scores, progress=tick))
    console.print(score_table(rows, 'percent right on held-out images; labels per class (mean±sd, 20 draws) or all'))
    with console.status('drawing'):
        plots = draw(runs, encoders, rows, out)
    checkpoints = {run.name: shown(run.checkpoint()) for run in runs}
    content = report('quickstart', rows, [shown(run.config) for run in runs], checkpoints, args.seed)
    content['seconds'] = round(time.monotonic() - start, 1)
    results = save_report(out / 'results.json', content)
    console.print(f'plots: {", ".join(shown(plot) for plot in plots)}', highlight=False, soft_wrap=True)
    console.print(f'results: {shown(results)}   ({content["seconds"]:.0f} s)', highlight=False)
    if verdict(rows) is False:
        console.print('[red]The expected finding did not show.[/] Look at losses.png and the logs beside it.')
        return 1
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (RuntimeError, FileNotFoundError) as error:
        console.print(f'[red]quickstart failed:[/] {escape(str(error))}', highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
