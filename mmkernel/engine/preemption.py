"""A run that is told to stop (SIGTERM, SIGUSR1, Ctrl-C) finishes its step, saves, and says by its exit code what to do next."""

import multiprocessing
import os
import select
import shlex
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from torch.distributed.distributed_c10d import _get_default_store

from mmkernel.checks import check_numbers
from mmkernel.distributed import rank, world_size
from mmkernel.engine.checkpoint_hook import place, save_here
from mmkernel.engine.forks import SIGNALS, hearing, steady
from mmkernel.engine.hooks import attempt
from mmkernel.engine.last_words import end, say
from mmkernel.engine.poll import Poll
from mmkernel.registry import HOOKS

AGAIN, INTERRUPTED, ABANDONED = 75, 130, 143  # EX_TEMPFAIL of sysexits.h; 128 + SIGINT; 128 + SIGTERM
MARKER = 'MMKERNEL_STOP_WORD'  # names the file in which tools/dist_train.sh looks for the exit code


class Preempted(SystemExit):
    """The run has saved its position and ends. ``code``: 75, start it again with --resume; 130, a person stopped it.

    Under tools/dist_train.sh it is 0, and the code stands in the file that MMKERNEL_STOP_WORD names: torchrun would make an
    error of any other.
    """


@HOOKS.register_module()
class PreemptionHook(Hook):
    """SIGTERM, SIGUSR1 and Ctrl-C end the run after the optimizer step, with a checkpoint; ``Preempted`` is raised.

    One process stops after its step; several at one step that process 0 names, about ``seconds`` later, or two steps where
    these take longer. A signal to any of them is enough. A second Ctrl-C quits at once. Workers of the loader ignore signals
    to the whole group of processes, and end with their process; so does every process that the run forks.

    A launcher whose other process has failed sends SIGTERM, too. One of several processes that gets SIGTERM and has not begun
    to save ``patience`` seconds later ends with 143: it waits for the other in a collective.
    """

    priority = 'LOWEST'  # after all that a checkpoint holds, and after the one that is due anyway

    def __init__(self, seconds: float = 1.0, patience: float = 10.0) -> None:
        check_numbers('PreemptionHook', zero=True, seconds=seconds, patience=patience)
        self.seconds, self.patience, self.before, self.asked, self.answered = seconds, patience, {}, 0, False

    def before_run(self, runner: Any) -> None:
        self.poll, self.asked, self.answered = Poll('stop', self.seconds), 0, False
        _tell_launcher('begun')  # what an earlier attempt said holds no longer
        if threading.current_thread() is not threading.main_thread():
            return runner.logger.info('PreemptionHook is off: signals reach the main thread alone.')
        self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        read, self.pipe = os.pipe()
        os.set_blocking(self.pipe, False)
        self.wakeup = signal.set_wakeup_fd(self.pipe, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(read,), daemon=True).start()
        hearing(self.pipe)
        loader = getattr(runner.train_dataloader, 'micro_batches', runner.train_dataloader)
        if (getattr(loader, 'multiprocessing_context', None) or multiprocessing).get_start_method() != 'fork':
            loader.worker_init_fn = partial(steady, getattr(loader, 'worker_init_fn', None))

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if attempt(runner.optim_wrapper)[0]:
            self._look(runner)

    def after_train_epoch(self, runner: Any) -> None:
        if runner.epoch + 1 < runner.max_epochs:
            self._look(runner)

    def leave_run(self, runner: Any) -> None:
        """However the run ends: signals do again what they did before it."""
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self.before:
            signal.set_wakeup_fd(self.wakeup)
            os.close(self.pipe)
            hearing(None)
        self.before = {}

    def _note(self, number: int, frame: Any) -> None:
        if not self.asked:
            self.asked = number
            again = ' Ctrl-C again quits at once.' if number == signal.SIGINT else ''
            say(f'{signal.Signals(number).name}: the run saves after this step and ends.{again}')

    def _watch(self, read: int) -> None:
        """End the process at the second Ctrl-C, or when SIGTERM finds it waiting for one that has failed.

        This is a thread, as Python calls its own handlers only after the operation that is going on.
        """
        interrupts, patience = 0, None
        while True:
            if not select.select([read], [], [], patience)[0]:
                if not self.answered:
                    text = f'SIGTERM: no step has ended in {self.patience} s, as another process may have failed.'
                    end(f'{text} This one ends.', ABANDONED)
                patience = None
                continue
            byte = os.read(read, 1)
            if not byte:  # the run has ended
                return os.close(read)
            interrupts += byte[0] == signal.SIGINT
            if interrupts == 2:
                for child in multiprocessing.active_children():
                    child.kill()  # one that hands over a batch would print that its process has gone
                os._exit(INTERRUPTED)
            if byte[0] == signal.SIGTERM and world_size() > 1:
                patience = self.patience

    def _look(self, runner: Any) -> None:
        if self.asked and rank():
            _get_default_store().set(f'{self.poll.name}/asked', str(int(self.asked)))
        if number := self.poll(self._asked_of_any):
            self._stop(runner, signal.Signals(number))

    def _asked_of_any(self) -> int:
        if self.asked or world_size() == 1:
            return int(self.asked)
        key, store = f'{self.poll.name}/asked', _get_default_store()
        return int(store.get(key)) if store.check([key]) else 0

    def _stop(self, runner: Any, number: signal.Signals) -> None:
        self.answered, path = True, place(runner)
        if path not in runner.folder.checkpoints:
            save_here(runner)
        code = INTERRUPTED if number == signal.SIGINT else AGAIN
        ways = f'The same command with --resume goes on, or mmkernel resume {shlex.quote(str(runner.work_dir))}.'
        runner.logger.warning(f'Stopped by {number.name}: {path} is saved. {ways}')
        for later in self.before:  # what launchers send while the process ends
            self.before[later] = signal.SIG_DFL if later == signal.SIGINT else signal.SIG_IGN
        raise Preempted(0 if _tell_launcher(code) else code)


def _tell_launcher(word: Any) -> bool:
    """Write a line for tools/dist_train.sh. False without it."""
    if marker := os.environ.get(MARKER):
        Path(marker).write_text(f'{word}\n')
    return bool(marker)
