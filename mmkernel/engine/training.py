"""From a checked config to a trained model, and the command line of ``tools/train.py``."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from torch.distributed.elastic.multiprocessing.errors import record

from mmkernel.engine.check import ConfigError
from mmkernel.engine.checkpoint import CheckpointError, epoch_files
from mmkernel.engine.config import load_config
from mmkernel.engine.dry_run import dry_run
from mmkernel.engine.launch import LAUNCHERS, leave_processes
from mmkernel.engine.options import OptionsAction, check_contradictions
from mmkernel.engine.run_folder import RunFolderError, make_folder
from mmkernel.engine.runner import Runner
from mmkernel.zoo.config_text import ordered

AMP = {'bf16': 'bfloat16', 'fp16': 'float16'}


def default_work_dir(cfg: Config) -> str:
    """``work_dirs/<folder of the config>/<its stem>``: several methods have a config called digits.py."""
    path = Path(cfg.filename or 'run').resolve()
    return str(Path('work_dirs') / (path.parent.name if cfg.filename else '') / path.stem)


def train(cfg: Config, resume: bool | str | Path = False, resume_anyway: bool = False) -> Runner:
    """Train ``cfg`` to the end and return its Runner (``runner.model`` is the model).

    ``resume=True`` continues from the furthest checkpoint of the work folder that opens (from the beginning in a folder
    without any); a path continues from that file. ``resume_anyway=True`` does so even if the config changes model,
    objective, views or data. Errors: RunFolderError for a work folder that holds another run; OtherRunError.
    """
    cfg = copy.deepcopy(ordered(cfg))  # the Runner writes into it
    if not cfg.get('work_dir'):
        cfg.work_dir = default_work_dir(cfg)
    if resume_anyway:
        cfg.resume_anyway, resume = True, resume or True
    if resume is True and cfg.get('load_from') and not epoch_files(cfg.work_dir):
        resume = False  # nothing to go on with: the run begins, with the weights that its config names
    if resume:
        cfg.resume = True
        cfg.load_from = None if resume is True else str(resume)
    make_folder(cfg.work_dir)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='train', description='Pretrain an encoder from a config.')
    parser.add_argument('config', help='config file, e.g. configs/kernels/digits_rbf.py')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<method>/<config>)')
    parser.add_argument(
        '--resume', nargs='?', const=True, default=False, metavar='FILE', help='continue from FILE or the furthest file'
    )
    parser.add_argument(
        '--resume-anyway',
        action='store_true',
        help='the same, though the config changes model, objective, views or data',
    )
    parser.add_argument('--amp', choices=sorted(AMP), help='half precision: bf16 (CPU or GPU) or fp16 (GPU)')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='who started the processes')
    parser.add_argument('--seed', type=int, help='overrides randomness.seed')
    parser.add_argument('--dry-run', action='store_true', help='print what would run; needs no data and no GPU')
    parser.add_argument('--gpus', type=int, help='with --dry-run: number of processes to reckon with')
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='override keys: a.b=1 c.0.d=2'
    )
    parser.add_argument('--local-rank', type=int, help=argparse.SUPPRESS)  # given by old launchers
    return parser


def config_from_arguments(args: argparse.Namespace) -> Config:
    """The checked config with the command line's values put in."""
    flags = dict(work_dir=args.work_dir, **{'optim_wrapper.precision': AMP.get(args.amp), 'randomness.seed': args.seed})
    said = [(key, value) for key, value in flags.items() if value is not None]
    check_contradictions([*(args.cfg_options or {}).items(), *said])
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    if args.amp:
        cfg.optim_wrapper.precision = AMP[args.amp]
    if args.seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': args.seed}
    return cfg


@record  # so that the launcher's summary shows the error of the process that failed first
def main(argv: Sequence[str] | None = None) -> None:
    """Entry of ``tools/train.py``. A mistake in config or options ends it with one line instead of a traceback."""
    args = _parser().parse_args(argv)
    try:
        cfg = config_from_arguments(args)
        if args.dry_run:
            dry_run(cfg, world_size=args.gpus)
            return
        train(cfg, args.resume, args.resume_anyway)
    except (ConfigError, FileNotFoundError, RunFolderError, CheckpointError) as error:
        sys.exit(1 if getattr(error, 'of_first_process', False) else f'{type(error).__name__}: {error}')
    leave_processes()
