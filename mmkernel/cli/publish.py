"""``mmkernel publish CHECKPOINT --name NAME``: weights only, hash in the name, card, row of the metafile."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from mmkernel.cli.encoders import common_options, encoder_of
from mmkernel.zoo.publish import HOLDS, add_row, publish_checkpoint, row_text

console = Console(highlight=False)


def main(argv: list[str], prog: str) -> None:
    args = arguments(prog).parse_args(argv)
    if args.metafile and not args.url:
        raise ValueError('--metafile needs --url: a row of the zoo says where its file lies.')
    encoder = encoder_of(args)
    console.print(f'{args.checkpoint}: {escape(str(encoder.report))}', soft_wrap=True)
    encoder.facts |= {key: value for key, value in vars(args).items() if key in ('source', 'trained_on') and value}
    if args.result:
        encoder.facts['metrics'] = [result(values, encoder.facts.get('epochs')) for values in args.result]
    row: dict[str, Any] = {'In Collection': args.collection or args.name.split('_')[0]}
    if args.config:
        row['Config'] = args.config
    row['Metadata'] = {
        'Training Data': args.trained_on or 'not stated',
        'Epochs': encoder.facts.get('epochs') or 'not stated',
    }
    found = publish_checkpoint(encoder, args.checkpoint, args.out, args.name, args.holds, args.half, args.url, row)
    kind = 'half precision' if args.half else 'full precision'
    console.print(
        f'written: {found.path} ({found.path.stat().st_size / 1e6:.2f} MB, {kind}; read back and run: largest difference of '
        f'features {found.difference:.2g} of the largest), {found.card}',
        soft_wrap=True,
    )
    if args.metafile:
        add_row(args.metafile, found.entry)
        console.print(f'row of {found.entry["Name"]} added to {args.metafile}', soft_wrap=True)
    else:
        console.print('row for the metafile:')
        console.print(escape(row_text(found.entry)), soft_wrap=True)


def result(values: list[str], epochs: Any) -> dict[str, Any]:
    """TASK, DATASET, METRIC, VALUE of the command line as a result of the metafile."""
    task, dataset, metric, value = values
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f'--result TASK DATASET METRIC VALUE: the value is a number, got {value!r}.') from None
    source = 'run here' + (f', epoch {epochs}' if epochs else '')
    return {'Task': task, 'Dataset': dataset, 'Metrics': {metric: number}, 'Source': source}


def arguments(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description='Make a file for others of a checkpoint of a run.')
    parser.add_argument('checkpoint', help='e.g. work_dirs/digits_L3/epoch_20.pth')
    parser.add_argument('--name', required=True, help='snake case; the name in the zoo')
    parser.add_argument('--out', type=Path, default=Path('published'), help='a folder (default: published)')
    parser.add_argument('--holds', choices=HOLDS, default='backbone', help="'model': all that training goes on with")
    parser.add_argument('--half', action='store_true', help='matrices and filters in float16')
    parser.add_argument(
        '--result', nargs=4, action='append', metavar=('TASK', 'DATASET', 'METRIC', 'VALUE'),
        help="a figure of this checkpoint, e.g. 'Linear probe' digits 'Top 1 Accuracy' 97.1; may be repeated",
    )  # fmt: skip
    parser.add_argument('--trained-on', metavar='DATA', help='the images it was trained on')
    parser.add_argument('--source', metavar='TEXT', help='where it comes from')
    parser.add_argument('--url', help='folder where the file will lie: https://..., or package:weights')
    parser.add_argument('--metafile', type=Path, help='add the row here; a row of this name gets what it lacks')
    parser.add_argument('--collection', help='of the metafile, for a new row (default: the first word of the name)')
    common_options(parser)
    return parser
