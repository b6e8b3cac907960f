"""What a run forks ends with it, from the first moment on."""

import multiprocessing
import os
import signal
import sys
import time

import pytest
from test_preemption import alive

from mmkernel.engine import forks


def dies(write, hears):
    """A run that dies while what it has forked is not yet steady: before or after it hears of signals."""
    forks._trains = True
    steady, forks._pipe = forks.steady, os.dup(write) if hears else None
    forks.steady = lambda: (os.write(write, f'{os.getpid()}\n'.encode()), time.sleep(0.3), steady())
    if not os.fork():
        time.sleep(60)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere the system does not end it')
@pytest.mark.parametrize('hears', [False, True])
def test_a_run_that_dies_while_it_forks(hears):
    read, write = os.pipe()
    run = multiprocessing.get_context('fork').Process(target=dies, args=(write, hears))
    run.start()
    child = int(os.read(read, 20))
    run.join()
    assert run.exitcode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    try:
        while alive(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not alive(child)
    finally:
        if alive(child):
            os.kill(child, signal.SIGKILL)
        os.close(read)
        os.close(write)
