"""``mmkernel diagnose CHECKPOINT``: a verdict in the terminal, a page beside the checkpoint."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.console import Console
from rich.markup import escape

from mmkernel.cli.options import OptionsAction, usable_device
from mmkernel.engine import (
    CheckpointError,
    ConfigError,
    load_config,
    load_weights,
    read_checkpoint,
    weights_of,
)
from mmkernel.engine.config import checked
from mmkernel.evaluation import (
    COLLAPSED,
    DOUBTFUL,
    HEALTHY,
    Diagnosis,
    check_trained,
    diagnose_cloud,
    load_cloud,
    sample_cloud,
    sample_source,
    save_cloud,
    save_report,
    untrained_encoder,
)
from mmkernel.evaluation.report import set_aside, writable
from mmkernel.zoo.config_text import OrderedConfig
from mmkernel.zoo.files import meta_of
from mmkernel.zoo.plain_config import TRUST, ConfigTextError, config_inside

console = Console(highlight=False)
STYLES = {HEALTHY: 'bold white on green', DOUBTFUL: 'bold black on yellow', COLLAPSED: 'bold white on red'}


def main(argv: list[str], prog: str) -> None:
    args = arguments(prog).parse_args(argv)
    checkpoint = read_checkpoint(args.checkpoint)
    cfg = find_config(Path(args.checkpoint), checkpoint, args.config, args.cfg_options)
    if not args.text:
        writable(f'{stem_of(args)}.json')  # said now, not after the work
    model = untrained_encoder(cfg)
    weights = weights_of(checkpoint)
    if getattr(model, 'neck', None) is not None and not any(key.startswith('neck.') for key in weights):
        raise CheckpointError(
            f"'{args.checkpoint}' holds an encoder alone. The diagnosis looks at embeddings, which the neck makes: expected a "
            'checkpoint of the pretraining, such as epoch_20.pth. The benchmarks of backbone features take this file.'
        )
    load_weights(model, weights, source=args.checkpoint)
    meta = meta_of(checkpoint)
    check_trained(model, meta, args.checkpoint)
    model.to(args.device)
    source = sample_source(cfg)
    cloud = load_cloud(args.embeddings, model) if args.embeddings else sample_cloud(model, cfg, args.images, source)
    about = dict(checkpoint=args.checkpoint, config=args.config or 'of the checkpoint', epoch=meta.get('epoch'),
                 encoder=cloud.encoder[:16], images=source.__class__.__name__)  # fmt: skip
    found = replace(diagnose_cloud(cloud, model), about=about)
    say(found)
    if args.save_embeddings:
        console.print(f'written: {save_cloud(cloud, args.save_embeddings)}')
    if not args.text:
        publish(found, cloud, source, args)


def arguments(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description='Is an embedding healthy, doubtful or collapsed? No labels needed.'
    )
    parser.add_argument('checkpoint', help='e.g. work_dirs/kernels/digits_rbf/epoch_20.pth')
    parser.add_argument(
        '--config', help='a config file, which is run; default: the values of the copy inside the checkpoint'
    )
    parser.add_argument('--images', type=int, default=1000, metavar='N', help='at most so many (default 1000)')
    parser.add_argument(
        '--out', metavar='STEM', help='page and numbers (default: <checkpoint>_diagnosis.{png,html,json})'
    )
    parser.add_argument('--text', action='store_true', help='the verdict only, no files')
    parser.add_argument('--save-embeddings', metavar='NPZ', help='keep the embeddings, to diagnose again elsewhere')
    parser.add_argument('--embeddings', metavar='NPZ', help='use kept ones; those of other weights are refused')
    parser.add_argument('--device', type=usable_device, default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='override keys')
    return parser


def find_config(path: Path, checkpoint: dict, given: str | None, options: dict | None = None) -> Config:
    """The config named, which is run as Python; else that inside the file, of which only values are taken."""
    if given:
        return load_config(given, options)
    beside = path.with_name('config.py')
    hint = f' There is one beside it: --config {beside}' if beside.is_file() else ''
    try:
        values = config_inside(checkpoint, str(path))
        if values is None:
            raise FileNotFoundError(f"'{path}' holds no config. Name it with --config.{hint}")
        return checked(OrderedConfig(values), options)
    except ConfigTextError as error:
        raise ConfigTextError(f'{error}{hint}') from error
    except ConfigError as error:
        raise ConfigError(f"the config inside '{path}': {error} {TRUST}{hint}") from error


def say(found: Diagnosis) -> None:
    console.print(f'[{STYLES[found.state]}] {found.state} [/] {escape(found.verdict)}', soft_wrap=True)
    for finding in found.findings:
        console.print(f'  • {escape(finding)}', soft_wrap=True)


def stem_of(args: argparse.Namespace) -> Path:
    path = Path(args.checkpoint)
    return Path(args.out) if args.out else path.with_name(f'{path.stem}_diagnosis')


def publish(found: Diagnosis, cloud: Any, source: Any, args: argparse.Namespace) -> None:
    """The PNG, the HTML and the JSON; those of an earlier diagnosis are kept as NAME.old."""
    from mmkernel.visualization.diagnosis import diagnosis_html, diagnosis_page  # matplotlib: a second to import

    stem = stem_of(args)
    for path in (Path(f'{stem}.{ending}') for ending in ('png', 'html', 'json')):
        if path.exists():
            set_aside(path)
    figure = diagnosis_page(found, cloud, source, args.checkpoint, f'{stem}.png')
    diagnosis_html(found, figure, args.checkpoint, f'{stem}.html')
    save_report(f'{stem}.json', asdict(found))
    console.print(f'written: {stem}.png, .html, .json', soft_wrap=True)
