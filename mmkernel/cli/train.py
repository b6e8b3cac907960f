"""``mmkernel train``, and tools/train.py."""

import argparse
import os
import sys
from collections.abc import Sequence

from mmengine.config import Config
from torch.distributed.elastic.multiprocessing.errors import record

from mmkernel.checks import check_numbers
from mmkernel.cli import explain
from mmkernel.cli.dry_run import dry_run
from mmkernel.cli.fitting import memory_here, read_bytes
from mmkernel.cli.options import OptionsAction
from mmkernel.engine import check_config, load_config, train
from mmkernel.engine.allowed_keys import ConfigError
from mmkernel.engine.launch import LAUNCHERS, leave_processes, lost_process
from mmkernel.engine.preemption import INTERRUPTED, Preempted
from mmkernel.engine.refusals import is_refusal
from mmkernel.writing import NO_ROOM

AMP = {'bf16': 'bfloat16', 'fp16': 'float16'}


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description='Pretrain an encoder from a config.')
    add = parser.add_argument
    add('config', help='config file, e.g. configs/kernels/digits_rbf.py')
    add('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<method>/<config>)')
    add(
        '--resume', nargs='?', const=True, default=False, metavar='FILE', help='continue from FILE or the furthest file'
    )
    add('--resume-anyway', action='store_true', help='the same, though model, objective, views or data have changed')
    add('--amp', choices=sorted(AMP), help='half precision: bf16 (CPU or GPU) or fp16 (GPU)')
    add('--launcher', choices=LAUNCHERS, default='none', help='who started the processes')
    add('--seed', type=int, help='overrides randomness.seed')
    add('--dry-run', action='store_true', help='print what would run; needs no data and no GPU')
    add('--gpus', type=int, help='with --dry-run: processes of a node to reckon with')
    add('--nodes', type=int, default=1, help='with --dry-run: nodes to reckon with')
    add('--memory', metavar='80GB', help="with --dry-run: of a device (default: this machine's GPU's)")
    add('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='override keys: a.b=1 c.0.d=2')
    add('--local-rank', type=int, help=argparse.SUPPRESS)  # given by old launchers
    return parser


def config_from_arguments(args: argparse.Namespace) -> Config:
    """The checked config with the command line's values put in; a flag counts more than --cfg-options."""
    flags = dict(work_dir=args.work_dir, **{'optim_wrapper.precision': AMP.get(args.amp), 'randomness.seed': args.seed})
    cfg = load_config(args.config, args.cfg_options)
    cfg.merge_from_dict(dict(launcher=args.launcher, **{k: v for k, v in flags.items() if v is not None}))
    check_config(cfg)
    return cfg


@record  # so that the launcher's summary shows the error of the process that failed first
def main(argv: Sequence[str] | None = None, prog: str = 'train') -> None:
    """Entry of both. What this package refuses ends it with one line, and MMKERNEL_TRACEBACK=1 shows where."""
    args, code = _parser(prog).parse_args(argv), 0
    try:
        cfg = config_from_arguments(args)
        if args.dry_run:
            check_numbers('--dry-run', whole=True, none=True, gpus=args.gpus, nodes=args.nodes)
            if args.nodes > 1 and args.gpus is None:
                raise ConfigError('--nodes needs --gpus, the processes of each node: --gpus 8 --nodes 2.')
            memory = read_bytes(args.memory) if args.memory else memory_here()
            dry_run(cfg, args.gpus and args.gpus * args.nodes, count=True, memory=memory)
            return
        train(cfg, args.resume, args.resume_anyway)
    except Preempted as stop:  # leave_processes follows when the error, which holds the model, is gone
        code = stop.code
    except KeyboardInterrupt:  # before the run has begun
        sys.exit(INTERRUPTED)
    except Exception as error:
        if text := lost_process(error):
            sys.exit(text)
        full = getattr(error, 'errno', None) in NO_ROOM  # of a log, say
        if not (full or is_refusal(error)) or os.environ.get('MMKERNEL_TRACEBACK') == '1':
            raise
        sys.exit(1 if getattr(error, 'of_first_process', False) else f'{type(error).__name__}: {explain(error)}')
    leave_processes()
    if code:
        sys.exit(code)
