"""``mmkernel export CHECKPOINT --to TARGET``: proven by equal features before the file appears."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mmkernel.cli.encoders import common_options, encoder_of
from mmkernel.zoo.export import TARGETS, export_model

console = Console(highlight=False)


def main(argv: list[str], prog: str) -> None:
    args = arguments(prog).parse_args(argv)
    encoder = encoder_of(args)
    if args.size:
        encoder.pixels['size'] = (args.size[0], args.size[-1])
    name = Path(args.checkpoint).name.removesuffix('.pth').removesuffix('.safetensors')
    folder = Path(args.checkpoint).parent if Path(args.checkpoint).exists() else Path()
    out = args.out or folder / f'{name}_{args.to}{TARGETS[args.to].suffix}'
    if encoder.report is not None:  # weights of the zoo have been reported by their name
        console.print(f'{args.checkpoint}: {escape(str(encoder.report))}', soft_wrap=True)
    found = export_model(encoder, args.to, out, args.force)
    console.print(f'written: {found.path} ({found.verdict})', soft_wrap=True)
    console.print(escape(found.how), soft_wrap=True)


def arguments(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description='Write a pretrained encoder for another library.')
    parser.add_argument('checkpoint', help='a file, or a name of the zoo')
    parser.add_argument('--to', required=True, choices=TARGETS, help='the format')
    parser.add_argument('--out', type=Path, help='default: <checkpoint>_<target>.<its ending>; hf: a folder')
    parser.add_argument(
        '--size', type=int, nargs='+', metavar='PIXELS', help='height and width of images (default: of the config)'
    )
    parser.add_argument('--force', action='store_true', help='replace what is there')
    common_options(parser)
    return parser
