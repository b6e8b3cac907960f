"""``mmkernel diagnose CHECKPOINT``: a verdict in the terminal, a page beside the checkpoint."""

import argparse
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import torch
from mmengine.config import Config
from rich.markup import escape

from mmkernel import evaluation
from mmkernel.cli.options import add_config_options, say, usable_device
from mmkernel.engine import CheckpointError, ConfigError, load_config, load_weights, read_checkpoint, weights_of
from mmkernel.engine.config import checked
from mmkernel.writing import set_aside, writable
from mmkernel.zoo.config_text import OrderedConfig
from mmkernel.zoo.files import meta_of
from mmkernel.zoo.plain_config import TRUST, ConfigTextError, config_inside
from mmkernel.zoo.shard_files import with_whole_weights

STYLES = dict(healthy='bold white on green', doubtful='bold black on yellow', collapsed='bold white on red')


def diagnose_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('checkpoint', type=Path, help='e.g. work_dirs/kernels/digits_rbf/epoch_20.pth; no labels are needed')
    add('--images', type=int, default=1000, metavar='N', help='at most so many (default 1000)')
    add('--out', metavar='STEM', help='page and numbers (default: <checkpoint>_diagnosis.{png,html,json})')
    add('--text', action='store_true', help='the verdict only, no files')
    add('--save-embeddings', metavar='NPZ', help='keep the embeddings, to diagnose again elsewhere')
    add('--embeddings', metavar='NPZ', help='use kept ones; those of other weights are refused')
    add('--device', type=usable_device, default='cuda' if torch.cuda.is_available() else 'cpu')
    add_config_options(parser)


def diagnose(args: argparse.Namespace) -> None:
    """A verdict in the terminal; a page in PNG and HTML and its numbers in JSON beside the checkpoint."""
    path = args.checkpoint
    stem = args.out or path.with_name(f'{path.stem}_diagnosis')
    checkpoint = with_whole_weights(read_checkpoint(path), path)
    cfg = find_config(path, checkpoint, args.config, args.cfg_options)
    if not args.text:
        writable(f'{stem}.json')  # said now, not after the work
    if args.save_embeddings:
        writable(args.save_embeddings, 'embeddings.npz')
    model = evaluation.untrained_encoder(cfg)
    weights = weights_of(checkpoint)
    if getattr(model, 'neck', None) is not None and not any(key.startswith('neck.') for key in weights):
        raise CheckpointError(
            f"'{path}' holds an encoder alone. The diagnosis looks at embeddings, which the neck makes: expected a checkpoint "
            'of the pretraining, such as epoch_20.pth. The benchmarks of backbone features take this file.'
        )
    load_weights(model, weights, source=str(path))
    meta = meta_of(checkpoint)
    evaluation.check_trained(model, meta, str(path))
    model.to(args.device)
    source = evaluation.sample_source(cfg)
    if args.embeddings:
        cloud = evaluation.load_cloud(args.embeddings, model, len(source))
    else:
        cloud = evaluation.sample_cloud(model, cfg, args.images, source)
    about = dict(checkpoint=str(path), config=args.config or 'of the checkpoint', epoch=meta.get('epoch'),
                 encoder=cloud.encoder[:16], images=source.__class__.__name__)  # fmt: skip
    found = replace(evaluation.diagnose_cloud(cloud, model), about=about)
    say(f'[{STYLES[found.state]}] {found.state} [/] {escape(found.verdict)}')
    for finding in found.findings:
        say(f'  • {escape(finding)}')
    if args.save_embeddings:
        say(f'written: {evaluation.save_cloud(cloud, args.save_embeddings)}')
    if args.text:
        return
    from mmkernel.visualization.diagnosis_page import diagnosis_html, diagnosis_page  # matplotlib: a second to import

    for old in (Path(f'{stem}.{ending}') for ending in ('png', 'html', 'json')):
        if old.exists():
            set_aside(old)
    figure = diagnosis_page(found, cloud, source, str(path), f'{stem}.png')
    diagnosis_html(found, figure, str(path), f'{stem}.html')
    evaluation.save_report(f'{stem}.json', asdict(found))
    say(f'written: {stem}.png, .html, .json')


def find_config(path: Path, checkpoint: dict, given: str | None, options: dict | None = None) -> Config:
    """The config named, which is run as Python; else that inside the file, of which only values are taken."""
    if given:
        return load_config(given, options)
    places = dict(
        beside=path.with_name('config.py'), above=path.absolute().parents[1] / 'config.py'
    )  # of a log folder: above
    hints = [
        f' There is one {where} it: --config {shlex.quote(str(file))}'
        for where, file in places.items()
        if file.is_file()
    ]
    hint = hints[0] if hints else ''
    try:
        values = config_inside(checkpoint, str(path))
        if values is None:
            raise FileNotFoundError(f"'{path}' holds no config. Name it with --config.{hint}")
        return checked(OrderedConfig(values), options)
    except ConfigTextError as error:
        raise ConfigTextError(f'{error}{hint}') from error
    except ConfigError as error:
        raise ConfigError(f"the config inside '{path}': {error} {TRUST}{hint}") from error
