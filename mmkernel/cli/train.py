"""``mmkernel train``, and tools/train.py."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

from mmengine.config import Config
from torch.distributed.elastic.multiprocessing.errors import record

from mmkernel import engine
from mmkernel.checks import check_numbers
from mmkernel.cli import explain
from mmkernel.cli.options import Flag, Options, options_of
from mmkernel.cli.own_data import Asked, OwnImages, command, say_diagnosis, write_recipe
from mmkernel.cli.terminal import Parameter
from mmkernel.engine import check_config, load_config
from mmkernel.engine.allowed_keys import ConfigError
from mmkernel.engine.launch import leave_processes, lost_process
from mmkernel.engine.preemption import INTERRUPTED, Preempted
from mmkernel.engine.refusals import is_refusal
from mmkernel.planning.dry_run import dry_run as print_plan
from mmkernel.planning.fitting import memory_here, read_bytes
from mmkernel.writing import NO_ROOM

AMP = {'bf16': 'bfloat16', 'fp16': 'float16'}


def flagged_config(config: str, options: dict[str, Any], **flags: Any) -> Config:
    """The checked config with the command line's values put in; a flag that is not None counts more than --cfg-options."""
    cfg = load_config(config, options)
    cfg.merge_from_dict({key: value for key, value in flags.items() if value is not None})
    check_config(cfg)
    return cfg


def plan(cfg: Config, gpus: int | None, nodes: int, memory: str | None) -> None:
    """--dry-run with its three options."""
    check_numbers(whole=True, none=True, **{'--gpus': gpus, '--nodes': nodes})
    if nodes > 1 and gpus is None:
        raise ConfigError('--nodes needs --gpus, the processes of each node: --gpus 8 --nodes 2.')
    print_plan(cfg, gpus and gpus * nodes, count=True, memory=read_bytes(memory) if memory else memory_here())


@record  # so that the launcher's summary shows the error of the process that failed first
def train(
    config: str | None = None,
    /,
    *,
    own: Annotated[OwnImages, Parameter(name='*')] = OwnImages(),  # noqa: B008
    work_dir: Annotated[str | None, Parameter(name=('--work-dir', '--out'))] = None,
    resume: Annotated[list[str] | None, Parameter(consume_multiple=(0, 1), metavar='[FILE]')] = None,
    resume_anyway: Flag = False,
    amp: Literal['bf16', 'fp16'] | None = None,
    launcher: Literal['none', 'pytorch', 'slurm'] = 'none',
    seed: int | None = None,
    dry_run: Flag = False,
    gpus: int | None = None,
    nodes: int = 1,
    memory: str | None = None,
    cfg_options: Options = None,
    local_rank: Annotated[int | None, Parameter(show=False)] = None,
) -> None:
    """Pretrain an encoder from a config, or on images of your own.

    Args:
        config: a config file, e.g. configs/kernels/digits_rbf.py.
        work_dir: folder for logs and checkpoints; default: work_dirs/<method>/<config>. With --data the config is kept there.
        resume: go on from FILE, or from the furthest checkpoint of the folder.
        resume_anyway: the same, though model, objective, views or data have changed.
        amp: half precision, bf16 (CPU or GPU) or fp16 (GPU).
        launcher: who started the processes.
        seed: of everything that is drawn; default: randomness.seed of the config.
        dry_run: print what would run, and what it needs; takes no data and no GPU.
        gpus: with --dry-run, processes of a node to reckon with.
        nodes: with --dry-run, nodes to reckon with.
        memory: with --dry-run, of a device, such as 80GB; default: that of this machine's GPU.
        local_rank: given by old launchers; the environment says the same.
    """

    def start() -> None:
        own.check(config)
        written = None
        if config is None:
            given = own.given() | {key: v for key, v in dict(seed=seed, amp=amp, out=work_dir).items() if v is not None}
            asked = Asked(**own.given(), seed=seed, precision=AMP.get(amp), work_dir=work_dir)
            written = write_recipe(asked, command(given, cfg_options or ()), launcher != 'none', keep=not dry_run)
        file, folder = written[:2] if written else (config, work_dir)
        try:
            flags = {'work_dir': folder, 'optim_wrapper.precision': AMP.get(amp), 'randomness.seed': seed}
            cfg = flagged_config(file, options_of(cfg_options), launcher=launcher, **flags)
            if dry_run:
                plan(cfg, gpus, nodes, memory)
                return
            runner = engine.train(cfg, resume[0] if resume else resume is not None or resume_anyway, resume_anyway)
        except BaseException:
            _ = written and written.forget()
            raise
        if written:
            say_diagnosis(runner, file)

    to_the_end(start)


def to_the_end(start: Callable[[], None]) -> None:
    """Call ``start``. What ends a run becomes an exit code, or one line where a check of ours has refused it."""
    code = 0
    try:
        start()
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
