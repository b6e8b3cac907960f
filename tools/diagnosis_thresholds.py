"""Measure healthy and collapsed runs, and derive the thresholds of the doctor from them.

python tools/benchmarks/compare.py            # first: every digits config with three seeds, into work_dirs/compare
python tools/diagnosis_thresholds.py

Healthy: runs whose kNN accuracy with one label per class exceeds that of raw pixels by --margin points. Collapsed: runs
below raw pixels that are built to collapse, those of CONFIGS and those of BUILT, which are trained here. The rest is listed
and used for nothing. Writes docs/diagnosis_thresholds.json and mmkernel/evaluation/diagnosis_reference.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmkernel.engine import latest_checkpoint, load_checkpoint, load_config
from mmkernel.evaluation import (
    YARDSTICK,
    cloud_statistics,
    few_label_scores,
    report,
    run_kernel,
    sample_cloud,
    save_report,
    untrained_encoder,
)

sys.path.append(str(Path(__file__).resolve().parent / 'benchmarks'))
from side_by_side import Run, pretrain, shown  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
STATISTICS = ('std', 'rank', 'retrieval')
WHICH = {'complete': ('std',), 'dimensional': ('rank',)}  # what each kind of collapse is told by
CONFIGS = {'sfrik/digits_L1': 'dimensional', 'dbn/digits_bn': 'dimensional'}
# name -> kind of collapse, config, what takes away the term that prevents it
BUILT = {
    'kernel weight 0': ('complete', 'sfrik/digits_L3', 'head=dict(kernel_weight=0.0)'),
    'variance weight 0': ('complete', 'vicreg/digits', 'head=dict(variance_weight=0.0)'),
    'target trained along': ('complete', 'simsiam/digits', "target=dict(type='OnlineTarget')"),
    'covariance weight 0': ('dimensional', 'vicreg/digits', 'head=dict(covariance_weight=0.0)'),
}
console = Console()


def built_config(name: str, folder: Path) -> Path:
    """A config file that takes one part away from one of the repository's."""
    _, base, change = BUILT[name]
    path = folder / name.replace(' ', '_') / 'digits.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"_base_ = '{ROOT / 'configs' / base}.py'\nmodel = dict({change})\n")
    return path


def measure(config: Path, checkpoint: Path, accuracy: float | None = None) -> dict:
    """Statistics of the test images under one checkpoint, and kNN accuracy with one label per class if not given."""
    cfg = load_config(config)
    model = untrained_encoder(cfg)
    load_checkpoint(model, checkpoint)
    cloud = sample_cloud(model, cfg)
    if accuracy is None:
        train = sample_cloud(model, {**cfg, 'evaluation': {**cfg.evaluation, 'test': cfg.evaluation.train}}, 10**6)
        scores = few_label_scores(train.h, train.labels, cloud.h, cloud.labels, shots=(1,))
        accuracy = scores['knn']['1']['mean']
    found = cloud_statistics(cloud.z, run_kernel(model) or YARDSTICK, cloud.views)
    return dict(knn_one_label=accuracy, **asdict(found))


def compared_runs(folder: Path, accuracies: Path) -> tuple[list[dict], float]:
    """Every run of tools/benchmarks/compare.py, and the accuracy of raw pixels."""
    content = json.loads(accuracies.read_text())
    known: dict[str, list[float]] = {}
    for row in content['rows']:
        known.setdefault(row['name'], []).append(row['scores']['knn']['1']['mean'])
    rows = []
    for config in content['config']:
        name = str(Path(config).relative_to('configs').with_suffix(''))
        for seed, accuracy in zip(content['settings']['seeds'], known[name], strict=True):
            checkpoint = latest_checkpoint(folder / name / str(seed))
            if checkpoint is None:
                raise FileNotFoundError(
                    f'no run in {folder / name / str(seed)}; run tools/benchmarks/compare.py first.'
                )
            rows.append(
                dict(name=name, seed=seed, kind=CONFIGS.get(name), **measure(ROOT / config, checkpoint, accuracy))
            )
            console.print(f'{name}, seed {seed}', highlight=False)
    return rows, known['raw pixels'][0]


def built_runs(folder: Path, seeds: list[int]) -> list[dict]:
    """The runs of BUILT, trained where they are not finished."""
    runs = {
        (name, seed): Run(f'{name}, seed {seed}', path := built_config(name, folder), path.parent / str(seed), seed)
        for name in BUILT
        for seed in seeds
    }
    pretrain([run for run in runs.values() if not run.finished], console)
    return [
        dict(name=name, seed=seed, kind=BUILT[name][0], **measure(run.config, run.checkpoint()))
        for (name, seed), run in runs.items()
    ]


def assign(rows: list[dict], raw: float, margin: float) -> None:
    """'state': healthy, collapsed or None."""
    for row in rows:
        good, bad = row['knn_one_label'] > raw + margin, row['knn_one_label'] < raw
        row['state'] = 'collapsed' if row['kind'] and bad else 'healthy' if good and not row['kind'] else None


def thresholds(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Per statistic the largest value of collapsed runs and the smallest of healthy ones; RuntimeError if they overlap."""
    limits = {}
    for name in STATISTICS:
        ill = [row for row in rows if row['state'] == 'collapsed' and row[name] is not None]
        if name != 'retrieval':
            ill = [row for row in ill if name in WHICH[row['kind']]]
        well = [row for row in rows if row['state'] == 'healthy' and row[name] is not None]
        worst, best = max(ill, key=lambda row: row[name]), min(well, key=lambda row: row[name])
        if worst[name] >= best[name]:
            raise RuntimeError(f'{name} does not separate: {worst["name"]} {worst[name]}, {best["name"]} {best[name]}.')
        limits[name] = dict(collapsed=worst[name], healthy=best[name])
    return limits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--compared', type=Path, default=ROOT / 'work_dirs/compare')
    parser.add_argument('--accuracies', type=Path, default=ROOT / 'docs/compare.json')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/diagnosis', help='folder of the runs of BUILT')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1], help='of the runs of BUILT')
    parser.add_argument('--margin', type=float, default=5.0, help='points above raw pixels from which a run is healthy')
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, raw = compared_runs(args.compared, args.accuracies)
    rows += built_runs(args.out, args.seeds)
    assign(rows, raw, args.margin)
    limits = thresholds(rows)
    table = Table('statistic', 'largest of collapsed', 'smallest of healthy')
    for name, limit in limits.items():
        table.add_row(name, f'{limit["collapsed"]:.3f}', f'{limit["healthy"]:.3f}')
    console.print(table)
    settings = dict(margin=args.margin, raw_pixels=raw, built={k: list(v) for k, v in BUILT.items()})
    content = report('diagnosis_thresholds', rows, 'configs/*/digits*.py', None, 0, **settings)
    kept = ('state', 'alignment', 'uniformity', 'rank', 'width')
    runs = [{key: row[key] for key in kept} for row in rows if row['state']]
    out = save_report(ROOT / 'docs/diagnosis_thresholds.json', {**content, 'thresholds': limits}, replace=True)
    package = save_report(
        ROOT / 'mmkernel/evaluation/diagnosis_reference.json', dict(thresholds=limits, runs=runs), True
    )
    console.print(f'written: {shown(out)}, {shown(package)}')


if __name__ == '__main__':
    try:
        main()
    except (RuntimeError, FileNotFoundError) as error:
        console.print(f'[red]diagnosis_thresholds failed:[/] {escape(str(error))}', highlight=False, soft_wrap=True)
        sys.exit(1)
