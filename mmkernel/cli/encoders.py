"""What export, import and publish share: a checkpoint or a name of the zoo -> an encoder with its preprocessing."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmkernel.cli.diagnose import find_config
from mmkernel.engine import OptionsAction
from mmkernel.zoo import get_model, list_models, read_checkpoint
from mmkernel.zoo.files import meta_of
from mmkernel.zoo.outgoing import portable
from mmkernel.zoo.portable import Portable, read_portable


def common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--config', help='a config file, which is run; default: the values of the copy inside the checkpoint'
    )
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='override keys')
    parser.add_argument('--license', metavar='TEXT', help="e.g. Apache-2.0 (default: 'not stated')")


def encoder_of(args: argparse.Namespace) -> tuple[Portable, str]:
    """(encoder, report of loading) of ``args.checkpoint``: a file, or a name of the zoo, which is downloaded."""
    path, given = Path(args.checkpoint), dict(license=args.license)
    if not path.exists() and args.checkpoint in list_models():
        found = portable(get_model(args.checkpoint))
        found.facts |= {key: value for key, value in given.items() if value}
        return found, 'from the zoo'
    content = read_checkpoint(path)
    if 'preprocessing' in meta_of(content) and not args.config:  # one of ours describes itself
        return read_portable(path, **given)
    cfg = find_config(path, content, args.config, args.cfg_options)
    return read_portable(path, cfg, **given)
