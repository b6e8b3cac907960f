"""Runs a function in W gloo processes on this machine and returns what each rank returned.

The processes are forked from a server that has imported the package once: a process of its own would spend seconds on that.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_processes(function: Callable, world_size: int, *args: Any, timeout: float = 300) -> list[Any]:
    """[function(rank, world_size, *args) on each rank]. ``function`` stands at the top of a module; a hang ends in an error."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.set_forkserver_preload(['mmkernel.engine', 'mmkernel.evaluation'])
        given = (dict(os.environ), function, world_size, folder, timeout, args)
        context = mp.start_processes(_worker, given, nprocs=world_size, join=False, start_method='forkserver')
        deadline = time.monotonic() + timeout
        while not context.join(timeout=1, grace_period=5):
            if time.monotonic() > deadline:
                for process in context.processes:
                    process.kill()
                raise TimeoutError(f'{function.__name__} on {world_size} processes took more than {timeout} s.')
        return [torch.load(Path(folder) / f'{rank}.pt', weights_only=True) for rank in range(world_size)]


def _worker(
    rank: int, environment: dict, function: Callable, world_size: int, folder: str, timeout: float, args: tuple
) -> None:
    os.environ.clear()  # the server's is that of the first test
    os.environ.update(environment)
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', f'file://{folder}/rendezvous', rank=rank, world_size=world_size, timeout=timedelta(seconds=timeout)
    )
    try:
        torch.save(function(rank, world_size, *args), Path(folder) / f'{rank}.pt')
        dist.barrier()  # a rank that has nothing to exchange must not leave while another still connects to it
    finally:
        dist.destroy_process_group()
