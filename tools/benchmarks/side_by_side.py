"""Several small runs at once, each in a process of its own with one thread, as many at a time as there are cores."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmkernel import __version__
from mmkernel.datasets import ViewDataset
from mmkernel.engine.checkpoint import latest_checkpoint
from mmkernel.engine.config import load_config
from mmkernel.evaluation.features import usable_cores
from mmkernel.registry import DATASETS
from mmkernel.visualization import read_scalars
from mmkernel.writing import set_aside


def read_kept(path: Path, kind: type = dict) -> Any:
    """What an earlier call wrote; ValueError if the file is damaged, or of another kind."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, kind) or not all(isinstance(row, dict) for row in (found if kind is list else ())):
            raise ValueError(f'{type(found).__name__}, not {kind.__name__}')
        return found
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is damaged ({error}): delete it, and what it tells is computed again.") from error


class Run:
    """One pretraining: what it is called, its config, its folder, and how far it is."""

    def __init__(self, name: str, config: Path, folder: Path, seed: int = 0) -> None:
        self.name, self.config, self.folder, self.seed = name, config, folder, seed
        self.cfg = load_config(config)
        self.views: ViewDataset = DATASETS.build(self.cfg.train_dataloader.dataset)
        loader = self.cfg.train_dataloader
        steps = len(self.views) // loader.batch_size
        self.steps = self.cfg.train_cfg.max_epochs * min(steps, loader.get('num_batch_per_epoch') or steps)
        self.log, self.done = folder / 'train.log', folder / 'done.json'
        self.process: subprocess.Popen | None = None
        self.started = self.seconds = 0.0

    @property
    def digest(self) -> str:
        """A hash of what the run is a function of: its config, its seed, the package."""
        return hashlib.sha256(f'{__version__} {self.seed} {self.cfg.pretty_text}'.encode()).hexdigest()[:16]

    @property
    def finished(self) -> bool:
        """Whether its folder holds this very run, to its end: not one of another config or seed."""
        return self._recorded('run') == self.digest and self._recorded('seconds') is not None

    def _recorded(self, key: str) -> Any:
        return read_kept(self.done).get(key) if self.done.is_file() else None

    def _record(self, seconds: float | None) -> None:
        self.done.write_text(json.dumps(dict(run=self.digest, seconds=seconds)) + '\n')

    def start(self) -> None:
        """Begin, or go on where an earlier call was interrupted. Another run in the folder is kept beside it as NAME.old.

        One thread: on two cores two runs side by side beat one run on both, and sums are added in one order.
        """
        if self.folder.is_dir() and any(self.folder.iterdir()) and self._recorded('run') != self.digest:
            set_aside(self.folder)  # neither its curve nor its weights may be taken for this one's
        self.folder.mkdir(parents=True, exist_ok=True)
        self._record(None)
        words = ['train', self.config, '--work-dir', self.folder, '--seed', self.seed, '--resume']
        command = [sys.executable, '-m', 'mmkernel', *map(str, words)]
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
        self.started = time.monotonic()
        with self.log.open('a') as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def fraction(self) -> float:
        """How much of the run is logged, between 0 and 1."""
        records = read_scalars(self.folder) if any(self.folder.glob('*/vis_data/scalars.json')) else []
        return min(1.0, max((record.get('step', 0) for record in records), default=0) / self.steps)

    def ended(self) -> bool:
        """Whether the run is over; RuntimeError with the end of its log if it failed."""
        code = self.process.poll()
        if code is None:
            return False
        if code:
            tail = '\n'.join(self.log.read_text(errors='replace').splitlines()[-15:])
            raise RuntimeError(f'pretraining {self.name} ended with code {code}; the end of {shown(self.log)}:\n{tail}')
        self.seconds = time.monotonic() - self.started
        self._record(self.seconds)
        return True

    def checkpoint(self) -> Path:
        return latest_checkpoint(self.folder)


def unused_folder(path: Path) -> Path:
    """``path``, or if something lies in it the first of path_2, path_3, ... that is empty or not there."""
    names = (path.with_name(f'{path.name}_{n}') if n > 1 else path for n in itertools.count(1))
    return next(name for name in names if not name.exists() or (name.is_dir() and not any(name.iterdir())))


def shown(path: Path) -> str:
    """A path as short as it can be from where the user is."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith('..') else relative


def progress_bars(console: Console) -> Progress:
    """Bars with the time spent and the time left."""
    columns = TextColumn('{task.description}'), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    return Progress(*columns, TextColumn('left'), TimeRemainingColumn(), console=console)


def pretrain(runs: Iterable[Run], console: Console, when_done: Callable[[Run], None] | None = None) -> None:
    """Train all ``runs``, with a bar that names those under way. ``when_done`` gets each run as it ends."""
    runs, going = list(runs), []
    waiting, said = list(runs), time.monotonic()
    with progress_bars(console) as bar:
        task = bar.add_task('pretraining', total=float(len(runs)))
        try:
            while waiting or going:
                while waiting and len(going) < usable_cores():
                    going.append(waiting.pop(0))
                    going[-1].start()
                time.sleep(0.5)
                for run in [run for run in going if run.ended()]:
                    going.remove(run)
                    if when_done:
                        when_done(run)
                done = len(runs) - len(waiting) - len(going) + sum(run.fraction() for run in going)
                text = f'pretraining {", ".join(run.name for run in going)}'
                bar.update(task, completed=done, description=text)
                if not console.is_terminal and time.monotonic() - said > 15:  # a log file shows no bars
                    said = time.monotonic()
                    console.print(f'{text}: {done:.1f} of {len(runs)} done')
        finally:
            for run in going:
                run.process.terminate()
