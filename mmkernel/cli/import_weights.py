"""``mmkernel import FILE --from LAYOUT``: weights of another library become a file of ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mmkernel.cli.encoders import common_options
from mmkernel.engine import load_config
from mmkernel.zoo.export import export_model
from mmkernel.zoo.foreign import import_weights, layouts

console = Console(highlight=False)


def main(argv: list[str], prog: str) -> None:
    args = arguments(prog).parse_args(argv)
    cfg = load_config(args.config, args.cfg_options) if args.config else None
    encoder = import_weights(
        args.file, args.layout, cfg, args.arch, args.channels, args.prefix, args.adapt_input,
        name=args.file.name.split('.')[0], license=args.license,
    )  # fmt: skip
    console.print(f'{args.file}: {escape(str(encoder.report))}', soft_wrap=True)
    out = args.out or args.file.with_name(f'{args.file.name.split(".")[0]}_imported.safetensors')
    found = export_model(encoder, 'safetensors', out, args.force)
    pixels = encoder.pixels
    console.print(f'written: {found.path} ({found.verdict})', soft_wrap=True)
    console.print(f'images: {pixels["size"][0]} x {pixels["size"][1]}, mean {pixels["mean"]}, std {pixels["std"]} '
                  f'({"of the config" if cfg else "as timm has them for this model, or as the folder says"})',
                  soft_wrap=True)  # fmt: skip
    console.print(escape(found.how), soft_wrap=True)


def arguments(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description='Read weights of another library into a file of ours.')
    parser.add_argument('file', type=Path, help="a .pth, .tar, .safetensors or .pkl, or a folder of the hub's layout")
    parser.add_argument(
        '--from', dest='layout', default='auto', choices=layouts(), help='default: found', metavar='LAYOUT'
    )
    parser.add_argument('--arch', metavar='NAME', help='what to build: a timm name, resnet50; or give a --config')
    parser.add_argument('--channels', type=int, default=3, help='of the images, with --arch (default 3)')
    parser.add_argument('--prefix', help="where several parts fit: 'module.encoder_k.'")
    parser.add_argument(
        '--adapt-input', action='store_true', help='filters for 3 channels into a model for another number'
    )
    parser.add_argument('--out', type=Path, help='default: <file>_imported.safetensors')
    parser.add_argument('--force', action='store_true', help='replace what is there')
    common_options(parser)
    return parser
