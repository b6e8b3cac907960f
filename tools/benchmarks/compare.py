"""Pretrain every digits config with several seeds, and write the comparison into model_zoo.md and docs/compare.json.

python tools/benchmarks/compare.py [--seeds 0 1 2] [--configs CONFIG ... [--keep]] [--out FOLDER]

Runs that are finished in --out, of the same config and seed, are not repeated; delete the folder to start over.
--keep: the rows of --json that are not of --configs stay, so that a config can be added to a comparison.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from side_by_side import Run, pretrain, read_kept, shown
from threadpoolctl import threadpool_limits
from torch import nn

from mmkernel.cli import one_line
from mmkernel.engine import load_checkpoint, load_config
from mmkernel.evaluation import (
    cloud_statistics,
    evaluate,
    extract_features,
    few_label_scores,
    report,
    save_report,
    untrained_encoder,
)
from mmkernel.writing import writable

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ('1', '4', 'all')
BEGIN, END = '<!-- compare: begin -->', '<!-- compare: end -->'

console = Console()


def score(cfg, name: str, model: nn.Module, raw: bool = False) -> list[dict]:
    """Rows with kNN and linear accuracy, and of the embedding: std and rank as ``cloud_statistics`` measures them."""
    cfg.evaluation.num_workers = 0
    with threadpool_limits(1):
        rows = evaluate(cfg, {name: model}, few_label_scores, raw=raw)
    part = cfg.evaluation
    z, _ = extract_features(model, part.train, part.transform, batch_size=part.batch_size, num_workers=0, stage='neck')
    found = cloud_statistics(z, degrees=())
    rows[-1].update({word: getattr(found, word) for word in ('std', 'rank', 'rankme')}, dimensions=z.shape[1])
    return rows


def score_run(run: Run) -> None:
    """Evaluate a finished run and keep the result beside its checkpoint."""
    model = untrained_encoder(run.cfg)
    load_checkpoint(model, run.checkpoint())
    (row,) = score(run.cfg, run.name, model)
    row['seconds'] = run.seconds
    (run.folder / 'row.json').write_text(json.dumps(row))


def baselines(config: Path, seeds: Sequence[int]) -> dict[str, list[dict]]:
    """Raw pixels once, the untrained encoder with every seed."""
    cfg = load_config(config)
    found: dict[str, list[dict]] = {'raw pixels': [], 'untrained encoder': []}
    for i, seed in enumerate(seeds):
        for row in score(cfg, 'untrained encoder', untrained_encoder(cfg, seed), raw=i == 0):
            found[row['name']].append(row)
    return found


def earlier(path: Path) -> tuple[dict[str, list[dict]], list[str]]:
    """The rows of a report under their names, and its configs."""
    found, content = {}, read_kept(path)
    for row in content['rows']:
        found.setdefault(row['name'], []).append(row)
    return found, content['config']


def cell(rows: list[dict], value) -> str:
    """mean ± sd over seeds."""
    values = [value(row) for row in rows]
    spread = f' ± {np.std(values, ddof=1):.1f}' if len(values) > 1 else ''
    return f'{np.mean(values):.1f}{spread}'


def markdown(groups: dict[str, list[dict]]) -> str:
    """One line per config, best kNN with one label per class first."""
    kinds = [(kind, shot) for kind in ('knn', 'linear') for shot in SHOTS]
    titles = [f'{"kNN" if kind == "knn" else "linear"}, {shot}' for kind, shot in kinds]
    lines = ['| encoder | ' + ' | '.join(titles) + ' | std | rank | seconds |', '|---' * (len(kinds) + 4) + '|']
    first = lambda rows: -np.mean([row['scores']['knn']['1']['mean'] for row in rows])  # noqa: E731
    for name, rows in sorted(groups.items(), key=lambda item: first(item[1])):
        cells = [cell(rows, lambda r, k=kind, s=shot: r['scores'][k][s]['mean']) for kind, shot in kinds]
        cells += [f'{np.mean([r["std"] for r in rows]):.2f}' if 'std' in rows[0] else '']
        cells += [f'{np.mean([r["rank"] for r in rows]):.1f} of {rows[0]["dimensions"]}' if 'rank' in rows[0] else '']
        cells += [f'{np.mean([r["seconds"] for r in rows]):.0f}' if 'seconds' in rows[0] else '']
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def write_between_markers(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    page = path.read_text()
    if page.count(begin) != 1 or page.count(end) != 1:
        raise RuntimeError(f'{shown(path)} must hold {begin} and {end} once each; the table goes between them.')
    before, rest = page.split(begin)
    path.write_text(f'{before}{begin}\n{text}\n{end}{rest.split(end)[1]}')


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found = sorted(ROOT.glob('configs/[!_]*/digits*.py'))
    parser.add_argument('--configs', type=Path, nargs='+', default=found, help='default: every digits config')
    parser.add_argument('--keep', action='store_true', help='keep the rows of --json that are of other configs')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/compare', help='folder of the runs')
    parser.add_argument('--page', type=Path, default=ROOT / 'model_zoo.md', help='page with the two markers')
    parser.add_argument('--json', type=Path, default=ROOT / 'docs/compare.json')
    return parser.parse_args()


def main() -> None:
    args = arguments()
    writable(args.json)
    writable(args.page, 'page.md')
    torch.set_num_threads(1)
    names = {config: f'{config.parent.name}/{config.stem}' for config in args.configs}
    runs = {
        (config, seed): Run(f'{names[config]} seed {seed}', config.resolve(), args.out.resolve() / names[config] / f'{seed}', seed)
        for seed in args.seeds
        for config in args.configs
    }  # fmt: skip
    missing = [run for run in runs.values() if not (run.finished and (run.folder / 'row.json').is_file())]
    pretrain(missing, console, score_run)
    groups, configs = earlier(args.json) if args.keep else (baselines(args.configs[0], args.seeds), [])
    for config in args.configs:
        groups[names[config]] = [read_kept(runs[config, seed].folder / 'row.json') for seed in args.seeds]
    table = markdown(groups)
    console.print(table, highlight=False, soft_wrap=True)
    rows = [{**row, 'name': name} for name, group in groups.items() for row in group]
    configs = sorted({*configs, *(shown(config) for config in args.configs)})
    save_report(args.json, report('compare', rows, configs, None, args.seeds[0], seeds=args.seeds), replace=True)
    write_between_markers(args.page, table)
    console.print(f'written: {shown(args.page)}, {shown(args.json)}')


if __name__ == '__main__':
    with one_line('compare.py'):
        main()
