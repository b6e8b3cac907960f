"""How well label-free criteria order checkpoints by linear accuracy: a study on the digits, and on CIFAR-10 if given.

python tools/benchmarks/checkpoint_choice.py [--every 2] [--finished work_dirs/compare] [--cifar10 cifar10_jpeg.npz]

Within a run: its checkpoints of many epochs. Between runs: the last checkpoints of the finished runs of compare.py.
Writes docs/checkpoint_choice.json and the table of docs/choosing_a_checkpoint.md. Finished parts of --out are not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import ROOT, write_between_markers
from mmengine.config import Config
from rich.console import Console
from rich.progress import track
from side_by_side import Run, pretrain, read_kept, shown
from threadpoolctl import threadpool_limits

from mmkernel import __version__
from mmkernel.cli import one_line
from mmkernel.engine import load_checkpoint, load_config
from mmkernel.evaluation import (
    YARDSTICK,
    agreement,
    checkpoint_statistics,
    extract_features,
    few_label_scores,
    report,
    run_kernel,
    save_report,
    untrained_encoder,
)
from mmkernel.writing import writable

METHODS = (
    'sfrik/digits_L1', 'sfrik/digits_L3', 'kernels/digits_rbf', 'vicreg/digits', 'barlow_twins/digits', 'simclr/digits',
    'byol/digits',
)  # fmt: skip
CIFAR_METHODS = ('sfrik/digits_L1', 'sfrik/digits_L3', 'simclr/digits')
IMAGES = 500  # whose embeddings are looked at
BEGIN, END = '<!-- checkpoint choice: begin -->', '<!-- checkpoint choice: end -->'

console = Console()


def many_checkpoints(method: str, every: int, folder: Path, pack: Path | None = None) -> Path:
    """The method's digits recipe with a checkpoint every few epochs, as a config file; ``pack``: on CIFAR-10's images."""
    cfg = load_config(ROOT / f'configs/{method}.py')
    cfg.default_hooks.checkpoint.update(interval=every, max_keep=None)
    if pack is not None:
        images = Config.fromfile(str(ROOT / 'configs/_base_/cifar10_pack_two_views.py'))
        images.train_dataloader.dataset.source.path = str(pack)
        for split, per_class in (('train', 500), ('test', 100)):
            source = dict(type='NpzPack', path=str(pack), split=split)
            images.evaluation[split] = dict(type='Subset', source=source, per_class=per_class)
        cfg.train_dataloader.dataset, cfg.evaluation = images.train_dataloader.dataset, images.evaluation
        cfg.data_preprocessor, cfg.model.backbone.in_channels = images.data_preprocessor, 3
        cfg.train_dataloader.num_batch_per_epoch = 20
    folder.mkdir(parents=True, exist_ok=True)
    cfg.dump(folder / 'recipe.py')
    return folder / 'recipe.py'


def score(cfg: Config, checkpoint: Path, own_kernel: bool) -> dict[str, Any]:
    """Label-free statistics, and accuracies of the backbone features in percent: all labels, and 4 per class.

    MMDs under different kernels cannot be compared: ``own_kernel`` is for checkpoints of one run.
    """
    model = untrained_encoder(cfg)
    load_checkpoint(model, checkpoint)
    part = cfg.evaluation
    data = [
        part_of
        for source in (part.train, part.test)
        for part_of in extract_features(model, source, part.transform, part.batch_size, num_workers=0)
    ]
    with threadpool_limits(1):
        scores = few_label_scores(*data, shots=(4,), draws=5)
    return dict(
        epoch=int(checkpoint.stem.removeprefix('epoch_')),
        statistics=checkpoint_statistics(model, cfg, (own_kernel and run_kernel(model)) or YARDSTICK, IMAGES),
        linear=scores['linear']['all']['mean'],
        linear_4=scores['linear']['4']['mean'],
        knn=scores['knn']['all']['mean'],
    )


def scored(cfg: Config, checkpoints: list[Path], kept: Path, name: str, own_kernel: bool = True) -> list[dict]:
    """One row per checkpoint, kept in a file so that an interrupted study goes on; of other weights or settings none is."""
    weights = {shown(path): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in checkpoints}
    rows = read_kept(kept, list) if kept.is_file() else []
    asked = dict(images=IMAGES, own_kernel=own_kernel, version=__version__)
    rows = [row for row in rows if row.get('asked') == {**asked, 'weights': weights.get(row['checkpoint'])}]
    done = {row['checkpoint'] for row in rows}
    new = [path for path in checkpoints if shown(path) not in done]
    for path in track(new, f'scoring {name}', console=console, transient=True, disable=not console.is_terminal):
        about = dict(checkpoint=shown(path), asked={**asked, 'weights': weights[shown(path)]})
        rows.append({**about, **score(cfg, path, own_kernel)})
        save_report(kept, rows, replace=True)
    return rows


def by_epoch(folder: Path) -> list[Path]:
    ends = [path for path in folder.glob('epoch_*.pth') if path.stem.removeprefix('epoch_').isdigit()]
    return sorted(ends, key=lambda path: int(path.stem.removeprefix('epoch_')))


def within(args: argparse.Namespace, methods: list[str], pack: Path | None = None) -> dict[str, list[dict]]:
    """Train what is not there yet and score every checkpoint: {method: rows}."""
    kind = 'digits' if pack is None else 'cifar10'
    folders = {method: args.out.resolve() / kind / method for method in methods}
    configs = {m: many_checkpoints(m, args.every, folder, pack) for m, folder in folders.items()}
    runs = {m: Run(f'{kind}: {m}', configs[m], folders[m] / 'run', args.seed) for m in methods}
    pretrain([run for run in runs.values() if not run.finished], console)
    return {m: scored(run.cfg, by_epoch(run.folder), folders[m] / 'rows.json', m) for m, run in runs.items()}


def between(args: argparse.Namespace) -> list[dict]:
    """The last checkpoint of every finished run of compare.py, one seed."""
    rows = []
    for folder in sorted(args.finished.glob(f'*/*/{args.seed}')):
        name = f'{folder.parent.parent.name}/{folder.parent.name}'
        config = ROOT / f'configs/{name}.py'
        if config.is_file() and by_epoch(folder):
            kept = args.out.resolve() / 'finished' / f'{name}.json'
            found = scored(load_config(config), by_epoch(folder)[-1:], kept, name, own_kernel=False)
            rows += [dict(name=name, **row) for row in found]
    return rows


def markdown(studies: dict[str, dict[str, dict]]) -> str:
    """One line per study: Spearman's rho of every criterion, and in brackets the accuracy lost by trusting it."""
    criteria = list(dict.fromkeys(criterion for found in studies.values() for criterion in found))
    lines = [
        '| checkpoints | ' + ' | '.join(c.replace('_', ' ') for c in criteria) + ' |',
        '|---' * (len(criteria) + 1) + '|',
    ]
    for name, found in studies.items():
        lines.append(f'| {name} | ' + ' | '.join(_cell(found.get(criterion)) for criterion in criteria) + ' |')
    return '\n'.join(lines)


def _cell(found: dict | None) -> str:
    if found is None:
        return ''
    rho = '–' if found['rho'] is None else f'{found["rho"]:+.2f}'
    return f'{rho} ({found["regret"]:.1f})'


def mean(group: list[dict[str, dict]]) -> dict[str, dict]:
    """Mean over runs of rho and regret, for criteria that all runs have."""
    shared = [c for c in group[0] if all(c in found and found[c]['rho'] is not None for found in group)]
    return {c: {k: float(np.mean([found[c][k] for found in group])) for k in ('rho', 'regret')} for c in shared}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--methods', nargs='+', default=list(METHODS), help='digits configs, e.g. sfrik/digits_L3')
    parser.add_argument('--every', type=int, default=2, help='epochs between checkpoints')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--finished', type=Path, default=ROOT / 'work_dirs/compare', help='runs of compare.py')
    parser.add_argument('--cifar10', type=Path, help='npz pack of CIFAR-10 (mmkernel/datasets/packs.py)')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/checkpoint_choice')
    parser.add_argument('--page', type=Path, default=ROOT / 'docs/choosing_a_checkpoint.md')
    parser.add_argument('--json', type=Path, default=ROOT / 'docs/checkpoint_choice.json')
    return parser.parse_args()


def main() -> None:
    args = arguments()
    writable(args.json)
    writable(args.page, 'page.md')
    torch.set_num_threads(1)
    runs = {f'digits, {method}': rows for method, rows in within(args, args.methods).items()}
    if args.cifar10:
        found = within(args, list(CIFAR_METHODS), args.cifar10.resolve())
        runs |= {
            f'CIFAR-10, {method.replace("digits_", "").replace("/digits", "")}': rows for method, rows in found.items()
        }
    finished = between(args)
    text = tables(runs, finished)
    rows = [dict(run=name, **row) for name, group in runs.items() for row in group]
    rows += [dict(run='finished', **row) for row in finished]
    settings = dict(every=args.every, cifar10=args.cifar10 and args.cifar10.name, images=IMAGES)
    save_report(args.json, report('checkpoint_choice', rows, args.methods, None, args.seed, **settings), replace=True)
    write_between_markers(args.page, text, BEGIN, END)
    console.print(text, highlight=False, soft_wrap=True)
    console.print(f'written: {shown(args.page)}, {shown(args.json)}', highlight=False)


def tables(runs: dict[str, list[dict]], finished: list[dict]) -> str:
    """Both tables of the page. A criterion that not every checkpoint of a line was measured by is left blank there."""
    text = []
    for accuracy, title in (('linear', 'all labels'), ('linear_4', '4 labels per class, mean of 5 draws')):
        studies = {}
        for images in dict.fromkeys(name.split(',')[0] for name in runs):
            group = {name: agreement(rows, accuracy) for name, rows in runs.items() if name.startswith(images)}
            studies |= group | {f'**mean, {images}**': mean(list(group.values()))}
        if len(finished) >= 3:
            studies[f'{len(finished)} finished runs, one per config'] = found = agreement(finished, accuracy)
            del found['epoch']  # says nothing between runs
        text.append(f'Linear accuracy with {title}:\n\n{markdown(studies)}')
    return '\n\n'.join(text)


if __name__ == '__main__':
    with one_line('checkpoint_choice.py'):
        main()
