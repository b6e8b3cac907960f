"""A process that is stopped or cut off ends the run, and is named."""

import os
import platform
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

from mmengine.hooks import Hook
from torch.distributed import Store
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from mmkernel.checks import check_numbers
from mmkernel.distributed import rank, world_size
from mmkernel.engine.last_words import end
from mmkernel.registry import HOOKS

LEFT = 'left'  # what a process says last, however its run ends


class SilentProcessError(RuntimeError):
    """A process of the run that no longer says that it is there."""


@HOOKS.register_module()
class PulseHook(Hook):
    """A process that has said nothing for ``patience`` seconds is named by the one before it, which ends with status 1.

    Its launcher ends all others. Every ``seconds`` a thread of each process counts in the store of torch.distributed, and looks
    at the count of the next: no collective, nothing on the device, and a long step or evaluation is no silence. Silence is
    counted in beats of one's own: processes that are suspended and woken together find none. Where the store itself has not
    answered for as long, as its process is stopped (rank 0 under SLURM, else torchrun), all others end. A process that lives
    and hangs is left to env_cfg.dist_cfg.timeout.
    """

    def __init__(self, seconds: float = 5.0, patience: float = 120.0) -> None:
        check_numbers('PulseHook', seconds=seconds, patience=patience)
        if patience < 3 * seconds:  # two clocks of one pace may miss a beat of each other
            raise ValueError(f'PulseHook.patience is at least 3 x seconds ({3 * seconds:g} s), got {patience:g}.')
        self.seconds, self.patience, self.thread, self.beats = seconds, patience, None, 0

    def before_run(self, runner: Any) -> None:
        if world_size() > 1:
            self.ended, store = threading.Event(), _get_default_store().clone()  # the run's own may be waiting
            # its clock goes on while the process is suspended; ``_watch`` counts
            store.set_timeout(timedelta(days=365))
            self.thread = threading.Thread(target=self._beat, args=(store,), daemon=True)
            self.thread.start()
            threading.Thread(target=self._watch, args=(self.ended,), daemon=True).start()

    def leave_run(self, runner: Any) -> None:
        if self.thread is not None:
            self.ended.set()
            self.thread.join(self.seconds)  # a connection that leads nowhere has no end
            self.thread = None

    def _beat(self, store: Store) -> None:
        own, other = rank(), (rank() + 1) % world_size()
        before, silent = '', 0
        try:
            while not self.ended.is_set():
                store.set(key(own), f'{self.beats}, process {os.getpid()} on {platform.node()}')
                if store.check([key(other)]):  # it has begun
                    now = store.get(key(other)).decode()
                    silent, before = silent + 1 if now == before != LEFT else 0, now
                if silent * self.seconds >= self.patience:
                    who = f'rank {other} ({before.partition(", ")[2]})'
                    _end(f'{who} has said nothing for {self.patience:g} s: it is stopped, dead, or cut off')
                self.beats += 1
                self.ended.wait(self.seconds)
            store.set(key(own), LEFT)
        except RuntimeError as error:  # those of torch.distributed are
            if not self.ended.is_set():
                _end(f'the store of torch.distributed does not answer; its process or machine has gone ({error})')

    def _watch(self, ended: threading.Event) -> None:
        """End this process where the store keeps ``_beat`` waiting: a call to a process that is stopped has no end."""
        before, silent = -1, 0
        while not ended.wait(self.seconds):
            silent, before = silent + 1 if self.beats == before else 0, self.beats
            if silent * self.seconds >= self.patience:
                text = f'has not answered for {self.patience:g} s: it is stopped or cut off'
                _end(f'the store of torch.distributed (torchrun, or rank 0) {text}')


def key(of: int) -> str:
    return f'mmkernel/pulse/{of}'


def _end(why: str) -> None:
    """End this process; its launcher shows ``why``."""
    try:
        raise SilentProcessError(f'{why[0].upper()}{why[1:]}. This process, rank {rank()}, ends.')
    except SilentProcessError as error:
        with suppress(OSError):  # the disk may be full, or gone with the machine
            if 'TORCHELASTIC_ERROR_FILE' in os.environ:
                get_error_handler().record_exception(error)
        end(f'{type(error).__name__}: {error}', 1)
