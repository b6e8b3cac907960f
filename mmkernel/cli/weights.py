"""``mmkernel export | import | publish``: encoders for other libraries, from other libraries, and for other people."""

import argparse
from pathlib import Path
from typing import Any

from rich.markup import escape

from mmkernel.cli.diagnose import find_config
from mmkernel.cli.options import add_config_options, say
from mmkernel.engine import load_config
from mmkernel.zoo import Encoder, get_model, list_models, load_encoder, read_checkpoint
from mmkernel.zoo.export import TARGETS, export_model
from mmkernel.zoo.files import meta_of
from mmkernel.zoo.hub import layouts
from mmkernel.zoo.metafile import STAGES
from mmkernel.zoo.publish import add_row, publish_checkpoint, row_text


def encoder_of(args: argparse.Namespace) -> Encoder:
    """The encoder of ``args.checkpoint``, with its preprocessing: a file, or a name of the zoo, which is downloaded."""
    path = Path(args.checkpoint)
    if not path.exists() and args.checkpoint in list_models():
        found = get_model(args.checkpoint)
        found.facts |= {'license': args.license} if args.license else {}
        return found
    content = read_checkpoint(path)
    described = 'preprocessing' in meta_of(content) and not args.config  # one of ours describes itself
    cfg = None if described else find_config(path, content, args.config, args.cfg_options)
    return load_encoder(path, cfg, license=args.license)


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument('--license', metavar='TEXT', help="e.g. Apache-2.0 (default: 'not stated')")


def export_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('checkpoint', help='a file, or a name of the zoo')
    add('--to', required=True, choices=TARGETS, help='the format')
    add('--out', type=Path, help='default: <checkpoint>_<target>.<its ending>; hf: a folder')
    add('--size', type=int, nargs='+', metavar='PIXELS', help='height and width of images (default: of the config)')
    add('--force', action='store_true', help='replace what is there')
    add_shared_options(parser)


def export(args: argparse.Namespace) -> None:
    """Write the encoder in the format ``--to``. Equal features are checked before the file appears."""
    encoder, path = encoder_of(args), Path(args.checkpoint)
    if args.size:
        encoder.pixels['size'] = (args.size[0], args.size[-1])
    name = f'{path.name.removesuffix(".pth").removesuffix(".safetensors")}_{args.to}{TARGETS[args.to].suffix}'
    if encoder.report is not None:  # weights of the zoo have been reported by their name
        say(f'{path}: {escape(str(encoder.report))}')
    found = export_model(encoder, args.to, args.out or (path.with_name(name) if path.exists() else name), args.force)
    say(f'written: {found.path} ({found.verdict})\n{escape(found.how)}')


def import_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('file', type=Path, help="a .pth, .tar, .safetensors or .pkl, or a folder of the hub's layout")
    add('--from', dest='layout', default='auto', choices=layouts(), help='default: found', metavar='LAYOUT')
    add('--arch', metavar='NAME', help='what to build: a timm name, resnet50; or give a --config')
    add('--channels', type=int, default=3, help='of the images, with --arch (default 3)')
    add('--prefix', help="where several parts fit: 'module.encoder_k.'")
    add('--adapt-input', action='store_true', help='filters for 3 channels into a model for another number')
    add('--out', type=Path, help='default: <file>_imported.safetensors')
    add('--force', action='store_true', help='replace what is there')
    add_shared_options(parser)
    parser.set_defaults(run=import_)


def import_(args: argparse.Namespace) -> None:
    cfg, name = load_config(args.config, args.cfg_options) if args.config else None, args.file.name.split('.')[0]
    ours = not (cfg or args.arch or args.layout == 'hf' or args.file.is_dir())  # the file describes itself
    facts = {} if ours else dict(name=name, source=f'imported from {args.file.name}')
    encoder = load_encoder(
        args.file, cfg, args.arch, args.layout, args.channels, args.prefix, args.adapt_input, license=args.license, **facts
    )  # fmt: skip
    say(f'{args.file}: {escape(str(encoder.report))}')
    out = args.out or args.file.with_name(f'{name}_imported.safetensors')
    found, pixels = export_model(encoder, 'safetensors', out, args.force), encoder.pixels
    foreign = 'of the config' if cfg else 'as timm has them for this model, or as the folder says'
    source = 'as the file says' if ours else foreign
    say(f'written: {found.path} ({found.verdict})')
    say(f'images: {pixels["size"][0]} x {pixels["size"][1]}, mean {pixels["mean"]}, std {pixels["std"]} ({source})')
    say(escape(found.how))


def publish_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('checkpoint', help='e.g. work_dirs/digits_L3/epoch_20.pth')
    add('--name', required=True, help='snake case; the name in the zoo')
    add('--out', type=Path, default=Path('published'), help='a folder (default: published)')
    add('--stage', choices=STAGES, default='backbone', help="'model': all that training goes on with")
    add('--half', action='store_true', help='matrices and filters in float16')
    add('--result', nargs=4, action='append', metavar=('TASK', 'DATASET', 'METRIC', 'VALUE'), default=[],
        help="a figure of this checkpoint, e.g. 'Linear probe' digits 'Top 1 Accuracy' 97.1; may be repeated")  # fmt: skip
    add('--trained-on', metavar='DATA', help='the images it was trained on')
    add('--source', metavar='TEXT', help='where it comes from')
    add('--url', help='folder where the file will lie: https://..., or package:weights')
    add('--metafile', type=Path, help='add the row here; a row of this name gets what it lacks')
    add('--collection', help='of the metafile, for a new row (default: the first word of the name)')
    add_shared_options(parser)


def publish(args: argparse.Namespace) -> None:
    if args.metafile and not args.url:
        raise ValueError('--metafile needs --url: a row of the zoo says where its file lies.')
    encoder = encoder_of(args)
    say(f'{args.checkpoint}: {escape(str(encoder.report))}')
    epochs = encoder.facts.get('epochs')
    encoder.facts |= {key: value for key, value in vars(args).items() if key in ('source', 'trained_on') and value}
    source = 'run here' + (f', epoch {epochs}' if epochs else '')
    if args.result:
        encoder.facts['metrics'] = [
            {'Task': task, 'Dataset': dataset, 'Metrics': {metric: _number(value)}, 'Source': source}
            for task, dataset, metric, value in args.result
        ]
    row: dict[str, Any] = {'In Collection': args.collection or args.name.split('_')[0]}
    row |= {'Config': args.config} if args.config else {}
    row['Metadata'] = {'Training Data': args.trained_on or 'not stated', 'Epochs': epochs or 'not stated'}
    found = publish_checkpoint(encoder, args.checkpoint, args.out, args.name, args.stage, args.half, args.url, row)
    say(
        f'written: {found.path} ({found.path.stat().st_size / 1e6:.2f} MB, {"half" if args.half else "full"} precision; read '
        f'back and run: largest difference of features {found.difference:.2g} of the largest), {found.card}'
    )
    if args.metafile:
        add_row(args.metafile, found.entry)
        say(f'row of {found.entry["Name"]} added to {args.metafile}')
    else:
        say(f'row for the metafile:\n{escape(row_text(found.entry))}')


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f'--result TASK DATASET METRIC VALUE: the value is a number, got {value!r}.') from None
