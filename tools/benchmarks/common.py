"""What the benchmarks share: their arguments, the encoders that they compare, and where the answer goes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from mmkernel.cli.options import OptionsAction, usable_device
from mmkernel.engine import default_work_dir, init_processes, load_checkpoint, load_config
from mmkernel.engine.launch import leave_processes
from mmkernel.evaluation import evaluate, feature_sets, report, save_report, untrained_encoder
from mmkernel.writing import writable
from mmkernel.zoo import CheckpointError, LoadReport, load_file

console = Console()


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file with an evaluation part, e.g. configs/sfrik/digits_L3.py')
    parser.add_argument(
        'checkpoint', nargs='?', help='weights; without (or none): raw pixels and untrained encoder only'
    )
    parser.add_argument('--stage', choices=('backbone', 'neck'), default='backbone', help='where features are taken')
    parser.add_argument('--seed', type=int, default=0, help='of the untrained encoder and of the probe')
    parser.add_argument('--device', type=usable_device, default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--json', metavar='OUT', help='result file (default: work_dirs/<method>/<config>/<benchmark>.json)'
    )
    parser.add_argument('--cache', type=Path, default=Path('work_dirs/features'), help='folder where features are kept')
    parser.add_argument('--no-cache', dest='cache', action='store_const', const=None, help='compute features again')
    parser.add_argument('--no-raw', dest='raw', action='store_false', help='no row for raw pixels')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='override keys')
    return parser


def join_processes(args: argparse.Namespace) -> bool:
    """Whether several processes were started (by torchrun); only the first of them speaks."""
    if int(os.environ.get('WORLD_SIZE', 1)) == 1:
        return False
    if args.cache is None:
        raise SystemExit('Several processes exchange features through the cache: drop --no-cache.')
    init_processes('pytorch')
    console.quiet = not is_main_process()
    return True


def progress_bar() -> Progress:
    """Nothing where nobody looks on: in a log it would leave blank lines."""
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def share_extraction(cfg: Config, encoders: dict[str, nn.Module], **options: Any) -> None:
    """Each process puts its share of the features into the cache; then the first goes on alone and the others end."""
    first = is_main_process()
    for _ in feature_sets(cfg, encoders, **options):
        continue
    leave_processes()
    if not first:
        raise SystemExit


def compare(args: argparse.Namespace, score: Callable[..., dict]) -> tuple[Config, list[dict]]:
    """The config and one row per encoder: raw pixels, untrained, and trained where there is a checkpoint."""
    several = join_processes(args)
    cfg = load_config(args.config, args.cfg_options)
    writable(args.json or Path(cfg.get('work_dir') or default_work_dir(cfg)) / 'results.json')
    encoders = encoders_of(args, cfg, args.stage)
    with progress_bar() as bar:
        tasks = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f'features: {name}', total=total)
            bar.update(tasks[name], completed=done, total=total)

        options = dict(raw=args.raw, stage=args.stage, progress=progress, cache=args.cache)
        if several:
            share_extraction(cfg, encoders, **options)
        return cfg, evaluate(cfg, encoders, score, **options)


def encoders_of(args: argparse.Namespace, cfg: Config, stage: str) -> dict[str, nn.Module]:
    """{row of the table: model}: untrained, and trained where there is a checkpoint."""
    encoders = {'untrained encoder': untrained_encoder(cfg, args.seed)}
    if args.checkpoint and args.checkpoint.lower() != 'none':
        encoders['trained encoder'] = trained = untrained_encoder(cfg, args.seed)
        said = load_trained(trained, args.checkpoint, stage)
        console.print(f'{args.checkpoint}: {said}', highlight=False, soft_wrap=True)
    return {name: model.to(args.device) for name, model in encoders.items()}


def load_trained(model: nn.Module, path: str, stage: str) -> LoadReport:
    """The weights of a run; where backbone features are enough, also a file of an encoder alone, in any published layout."""
    try:
        return load_checkpoint(model, path)
    except CheckpointError:
        if stage != 'backbone':
            raise
        return load_file(model.backbone, path)


def publish(
    benchmark: str, args: argparse.Namespace, cfg: Config, rows: list[dict], table: Table, **settings: Any
) -> None:
    """Print the table, write the JSON, say where."""
    console.print(table)
    out = args.json or Path(cfg.get('work_dir') or default_work_dir(cfg)) / f'{benchmark}.json'
    settings |= dict(stage=args.stage, device=args.device, cfg_options=args.cfg_options)
    checkpoint = args.checkpoint if 'trained encoder' in [row['name'] for row in rows] else None
    path = save_report(out, report(benchmark, rows, args.config, checkpoint, args.seed, **settings))
    console.print(f'written: {path}', highlight=False, soft_wrap=True)
