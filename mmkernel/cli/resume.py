"""``mmkernel resume``: a run goes on from its folder alone."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

from mmengine.config import Config
from rich.markup import escape
from torch.distributed.elastic.multiprocessing.errors import record

from mmkernel import engine
from mmkernel.checks import did_you_mean
from mmkernel.cli.options import Options, options_of
from mmkernel.cli.terminal import Parameter, say
from mmkernel.cli.train import flagged_config, to_the_end
from mmkernel.engine.checkpoint import checkpoint_meta


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
        runs = sorted(str(config.parent) for depth in ('*', '*/*') for config in folder.glob(f'{depth}/config.py'))
        if runs:
            hint = f'Runs in it: {", ".join(runs[:5])}{", ..." if len(runs) > 5 else ""}.'
        if (above / 'config.py').is_file():
            hint = f'The folder above is a run: mmkernel resume {shlex.quote(str(above))}'
        raise FileNotFoundError(f"'{folder}' is not a folder of a run, which has a config.py. {hint}")
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
