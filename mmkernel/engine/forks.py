"""Processes that a run forks, such as workers of loaders: signals to the whole group are not for them."""

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

_trains = False  # a run is going on in this process, from before its first fork to its end
_pipe: int | None = None  # where the run that is going on in this process hears of signals
_mask: set | None = None  # while the thread of the run forks: which signals were blocked before
_run = 0  # the process of the run, for those that it forks


@contextmanager
def training() -> Iterator[None]:
    """A run goes on inside: what it forks ends with it, also before it hears of signals."""
    global _trains
    _trains = True
    try:
        yield
    finally:
        _trains = False


def hearing(pipe: int | None) -> None:
    """From now on the run hears of signals by ``pipe``; None: it has ended."""
    global _pipe
    _pipe = pipe


def _before_fork() -> None:
    """A child sees no signal before it is steady: it would take one to the whole group for the run's own."""
    global _mask, _run
    _run = os.getpid()
    if (_trains or _pipe is not None) and threading.current_thread() is threading.main_thread():
        _mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _after_fork() -> None:
    global _mask
    if _mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask)
        _mask = None


def _in_child() -> None:
    global _pipe, _mask, _trains
    if _mask is not None:
        steady()
        if os.getppid() != _run:
            os._exit(0)  # the run died before the system knew that this one ends with it
        if _pipe is not None:
            os.close(_pipe)
        _pipe, _mask, _trains = None, None, False


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


def steady(then: Callable[[int], None] | None = None, worker: int = 0) -> None:
    """In a process that a run starts, such as a worker of any loader: only the run itself ends it.

    SLURM, a terminal or torchrun send signals to all processes of a group; the step that is to be finished needs its batch.
    ``then``: ``worker_init_fn`` of the config's own, or None.
    """
    gc.freeze()  # or the first full collection would copy and visit all that was inherited: 0.2 s
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    linux = sys.platform == 'linux'
    signal.pthread_sigmask(signal.SIG_BLOCK if linux else signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGUSR1})
    if linux:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with its process
        threading.Thread(target=_wait_for_end, args=(os.getppid(),), daemon=True).start()
    if then is not None:
        then(worker)


def _wait_for_end(parent: int) -> None:
    """SIGTERM of the process itself ends a worker; that of others does not."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
