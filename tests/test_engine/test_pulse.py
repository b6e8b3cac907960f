"""Processes that notice when another says nothing."""

import os
import signal
import sys
import time

import pytest
import torch.distributed as dist
from multiprocess import run_processes
from test_preemption import TINY, several
from torch.distributed.distributed_c10d import _get_default_store

from mmkernel.engine import PulseHook, pulse

PATIENCE = 3  # a busy machine leaves a thread without a turn


def watched(rank, world_size):
    """Rank 0 stops rank 1 until it has said so, and lets it go on; then rank 1 leaves the run."""
    said, store, hook = [], _get_default_store(), PulseHook(seconds=0.1, patience=PATIENCE)
    pulse._end = said.append
    hook.before_run(None)
    if rank:
        store.set('pid', str(os.getpid()))
        store.get('on')
    else:
        pid, limit = int(store.get('pid')), time.monotonic() + 60
        time.sleep(1)  # both have begun
        os.kill(pid, signal.SIGSTOP)
        while not said and time.monotonic() < limit:
            time.sleep(0.05)
        os.kill(pid, signal.SIGCONT)
        store.set('on', '')
    dist.barrier()
    time.sleep(0.5)
    named = [*said]
    said.clear()
    if rank:
        hook.leave_run(None)
    time.sleep(1.2 * PATIENCE)
    hook.leave_run(None)
    return [named[:1], said]


@pytest.mark.slow
def test_who_stops_is_named_and_who_wakes_or_leaves_is_not():
    (named, later), of_the_other = run_processes(watched, 2)
    assert len(named) == 1
    assert named[0].startswith('rank 1 (process ')
    assert later == []
    assert of_the_other == [[], []]


def test_one_process_has_no_thread():
    hook = PulseHook()
    hook.before_run(None)
    hook.leave_run(None)
    assert hook.thread is None


@pytest.mark.parametrize('name', ['seconds', 'patience'])
def test_bad_settings(name):
    with pytest.raises(ValueError, match=f'PulseHook.{name}'):
        PulseHook(**{name: 0})
    with pytest.raises(ValueError, match='PulseHook.patience is at least 3 x seconds'):
        PulseHook(seconds=5, patience=10)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='stops a process as Linux does')
def test_a_stopped_process_ends_the_job_and_stands_on_top(tmp_path):
    hooks = f"default_hooks = {{'pulse': {{'seconds': 0.5, 'patience': {PATIENCE}}}}}"
    dies = f"custom_hooks = [{{'type': 'DiesOnce', 'file': '{tmp_path / 'died'}', 'number': {int(signal.SIGSTOP)}}}]"
    (tmp_path / 'stops.py').write_text(f"_base_ = '{TINY}'\n{hooks}\n{dies}\n")
    run = several(tmp_path / 'a', tmp_path / 'stops.py', PYTHONPATH=f'{TINY.parent}')
    said = run.communicate(timeout=200)[0]  # torchrun waits 30 s for the one that is stopped
    assert run.returncode == 1
    assert 'SilentProcessError: Rank 1 (process' in said.partition('Root Cause')[2], said[-4000:]


def without_store(rank, world_size):
    """A store that never answers: the thread is in a call that has no end."""
    said, hook = [], PulseHook(seconds=0.1, patience=1)
    pulse._end = said.append
    PulseHook._beat = lambda self, store: time.sleep(4)
    hook.before_run(None)
    time.sleep(3)
    hook.leave_run(None)
    return said


@pytest.mark.slow
def test_a_store_that_does_not_answer_ends_the_process():
    for said in run_processes(without_store, 2):
        assert said
        assert said[0].startswith('the store of torch.distributed (torchrun, or rank 0) has not answered for 1 s')
