"""What export, import and publish share: a checkpoint or a name of the zoo -> an encoder with its preprocessing."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmkernel.cli.diagnose import find_config
from mmkernel.cli.options import OptionsAction
from mmkernel.zoo import Encoder, get_model, list_models, load_encoder, read_checkpoint
from mmkernel.zoo.files import meta_of


def common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--config', help='a config file, which is run; default: the values of the copy inside the checkpoint'
    )
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='override keys')
    parser.add_argument('--license', metavar='TEXT', help="e.g. Apache-2.0 (default: 'not stated')")


def encoder_of(args: argparse.Namespace) -> Encoder:
    """The encoder of ``args.checkpoint``: a file, or a name of the zoo, which is downloaded."""
    path = Path(args.checkpoint)
    if not path.exists() and args.checkpoint in list_models():
        found = get_model(args.checkpoint)
        if args.license:
            found.facts['license'] = args.license
        return found
    content = read_checkpoint(path)
    described = 'preprocessing' in meta_of(content) and not args.config  # one of ours describes itself
    cfg = None if described else find_config(path, content, args.config, args.cfg_options)
    return load_encoder(path, cfg, license=args.license)
