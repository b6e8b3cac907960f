"""A progress bar below the log, on a terminal."""

import os
import sys
import time
from contextlib import suppress
from typing import Any

from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from mmkernel.engine import last_words
from mmkernel.engine.log_line import duration
from mmkernel.registry import HOOKS

EVERY = 0.5  # seconds between two drawings
SWITCH = 'MMKERNEL_PROGRESS'


@HOOKS.register_module()
class ProgressHook(Hook):
    """Epoch, steps of the run, loss and time left, in process 0 if its stdout is a terminal; the log scrolls above.

    Off with ``default_hooks.progress=None`` or MMKERNEL_PROGRESS=0. Steps draw it, at most twice a second: there is no thread,
    and the loss is that which the log has read last, so nothing is read from a device for it. A file or a pipe gets the lines of
    the log alone. A terminal that goes away takes the bar with it; the run goes on.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def before_train(self, runner: Any) -> None:
        console = Console(soft_wrap=True)  # what is printed above is not cut or broken
        on = os.environ.get(SWITCH, '1') != '0' and runner.rank == 0
        if not (on and sys.stdout.isatty()) or console.is_dumb_terminal:
            return
        columns = (
            TextColumn('{task.description}'),
            BarColumn(24),
            TaskProgressColumn(),
            TextColumn('{task.fields[said]}'),
        )
        same = sys.stderr.isatty()  # else it is a file, and stays one
        self.bar = Progress(*columns, console=console, auto_refresh=False, transient=True, redirect_stderr=same)
        self.task = self.bar.add_task('', total=runner.max_iters, completed=runner.iter, said='')
        self.drawn = 0.0
        self.bar.start()
        console.show_cursor(True)  # a killed process could not give it back
        last_words.erase = '\r\x1b[2K' if same else ''

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.bar is None or (now := time.monotonic()) - self.drawn < EVERY:
            return
        self.drawn, hub = now, runner.message_hub
        # the last values that the log has brought to the host
        known = list(getattr(hub.log_scalars.get('train/loss'), 'kept', ()))[-10:]
        said = f'step {runner.iter + 1}/{runner.max_iters}'
        if known:
            said += f'  loss {sum(value for value, _ in known) / len(known):.4g}'
        if (left := hub.runtime_info.get('eta')) is not None:
            said += f'  {duration(left)} left'
        place = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
        try:
            self.bar.update(self.task, description=place, completed=runner.iter + 1, said=said)
            self.bar.refresh()
        except OSError:  # the terminal has gone
            self.leave_run(runner)

    def after_train(self, runner: Any) -> None:
        self.leave_run(runner)

    def leave_run(self, runner: Any) -> None:
        """However the run ends: the line of the bar is empty again."""
        bar, self.bar, last_words.erase = self.bar, None, ''
        if bar is not None:
            with suppress(OSError):
                bar.stop()
