"""``mmkernel train`` and ``mmkernel resume``, and tools/train.py."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from mmengine.config import Config
from rich.markup import escape
from torch.distributed.elastic.multiprocessing.errors import record

from mmkernel import engine
from mmkernel.checks import check_numbers, did_you_mean
from mmkernel.cli import explain
from mmkernel.cli.dry_run import dry_run as print_plan
from mmkernel.cli.fitting import memory_here, read_bytes
from mmkernel.cli.options import Flag, Options, options_of
from mmkernel.cli.terminal import say
from mmkernel.engine import check_config, load_config
from mmkernel.engine.allowed_keys import ConfigError
from mmkernel.engine.checkpoint import checkpoint_meta
from mmkernel.engine.launch import leave_processes, lost_process
from mmkernel.engine.preemption import INTERRUPTED, Preempted
from mmkernel.engine.refusals import is_refusal
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
    check_numbers('--dry-run', whole=True, none=True, gpus=gpus, nodes=nodes)
    if nodes > 1 and gpus is None:
        raise ConfigError('--nodes needs --gpus, the processes of each node: --gpus 8 --nodes 2.')
    print_plan(cfg, gpus and gpus * nodes, count=True, memory=read_bytes(memory) if memory else memory_here())


@record  # so that the launcher's summary shows the error of the process that failed first
def train(
    config: str,
    /,
    *,
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
    """Pretrain an encoder from a config.

    Args:
        config: a config file, e.g. configs/kernels/digits_rbf.py.
        work_dir: folder for logs and checkpoints; default: work_dirs/<method>/<config>.
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
        flags = {'work_dir': work_dir, 'optim_wrapper.precision': AMP.get(amp), 'randomness.seed': seed}
        cfg = flagged_config(config, options_of(cfg_options), launcher=launcher, **flags)
        if dry_run:
            plan(cfg, gpus, nodes, memory)
        else:
            engine.train(cfg, resume[0] if resume else resume is not None or resume_anyway, resume_anyway)

    to_the_end(start)


@record
def resume(
    run: Path,
    /,
    *,
    work_dir: Annotated[str | None, Parameter(name=('--work-dir', '--out'))] = None,
    anyway: Annotated[bool, Parameter(name=('--anyway', '--resume-anyway'), negative=(), show_default=False)] = False,
    launcher: Literal['none', 'pytorch', 'slurm'] = 'none',
    cfg_options: Options = None,
    local_rank: Annotated[int | None, Parameter(show=False)] = None,
) -> None:
    """Go on with a run, from its folder alone.

    Args:
        run: folder of the run, whose furthest checkpoint that opens is taken; or one of its checkpoints.
        work_dir: another folder for what comes now, so that the run branches off; default: its own.
        anyway: though model, objective, views or data have changed.
        launcher: who started the processes.
        local_rank: given by old launchers; the environment says the same.
    """

    def start() -> None:
        folder, file = run_folder(run)
        into = work_dir or str(folder)
        cfg = flagged_config(str(folder / 'config.py'), options_of(cfg_options), launcher=launcher, work_dir=into)
        if ended := finished(cfg, folder, file):
            say(escape(ended))
        else:
            last = file if work_dir is None else file or engine.latest_checkpoint(folder)
            engine.train(cfg, last or True, anyway)

    to_the_end(start)


def run_folder(path: Path) -> tuple[Path, Path | None]:
    """(folder of a run, the checkpoint in it that was named, or None); FileNotFoundError for anything else."""
    if not path.exists():
        near = [str(other) for other in (path.parent.iterdir() if path.parent.is_dir() else ())]
        text = f"There is no run '{path}'; expected its folder, which train has written, or a checkpoint in it."
        raise FileNotFoundError(f'{text} {did_you_mean(str(path), near)}'.rstrip())
    folder, file = (path, None) if path.is_dir() else (path.parent, path)
    if not (folder / 'config.py').is_file():
        above = folder.absolute().parent
        hint = 'It has none: mmkernel train CONFIG --work-dir FOLDER --resume takes another config.'
        if (above / 'config.py').is_file():
            hint = f'The folder above is a run: mmkernel resume {shlex.quote(str(above))}'
        raise FileNotFoundError(f"'{folder}' is no folder of a run, which has a config.py. {hint}")
    return folder, file


def finished(cfg: Config, folder: Path, file: Path | None) -> str:
    """'' unless the run has made all its epochs: then a sentence that says so, and how to train longer."""
    last, epochs = file or engine.latest_checkpoint(folder), cfg.train_cfg.get('max_epochs')
    done = checkpoint_meta(last).get('epoch', 0) if last else 0
    if not epochs or done < epochs:
        return ''
    longer = f'mmkernel resume {shlex.quote(str(folder))} --cfg-options train_cfg.max_epochs={2 * done}'
    return (
        f"The run in '{folder}' is finished: {last.name} stands at the end of epoch {done} of {epochs}. To train longer, with "
        f'the schedules drawn out to the new length:\n  {longer}'
    )


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
