"""Starts of small runs in processes that are forked from a server, which has imported the package once: half a second each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch
from small_runs import ROOT, small

from mmkernel.owner import born

CONTEXT = multiprocessing.get_context('forkserver')
ENDED = 30.0  # seconds that processes have to end once one of them has failed or been told to


def load_server() -> None:
    """What the server imports before it forks."""
    package = ['mmkernel.engine', 'mmkernel.evaluation', 'timm', 'sklearn.datasets']
    multiprocessing.set_forkserver_preload([*package, 'harness', 'faults'])


def case(path: str, processes: int, workers: int | str, accumulation: int = 1, virtual: int = 1, **more: Any) -> dict:
    """A run of 64 batches that saves every third step; ``more``: options of its config."""
    options = small(path, workers, accumulation, virtual) | {
        'train_dataloader.num_batch_per_epoch': 8,
        'train_cfg.max_epochs': 8,
        'default_hooks.checkpoint.every_steps': 3,
        'default_hooks.checkpoint.max_keep': 3,
        'default_hooks.preemption.patience': 1.0,
        'env_cfg.dist_cfg.timeout': 20.0,
        'launcher': 'pytorch' if processes > 1 else 'none',
    }
    parts = [f'{processes} process{"es" * (processes > 1)}', f'workers {workers}']
    parts += [f'accumulation {accumulation}'] * (accumulation > 1) + [f'virtual batch of {virtual}'] * (virtual > 1)
    return dict(name=', '.join([path, *parts]), path=path, processes=processes, options=options | more)


class Life:
    """One start of a case in ``folder``, from its beginning or from where it stands; its words go to ``folder``.txt."""

    def __init__(self, case: dict, folder: Path, hurts: dict | None = None) -> None:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        folder.parent.mkdir(parents=True, exist_ok=True)
        given = case['path'], case['options'], str(folder), case['processes'], port, hurts or {}
        self.processes = [
            CONTEXT.Process(target=_live, args=(rank, *given), daemon=False) for rank in range(case['processes'])
        ]
        self.file, self.begun = Path(f'{folder}.txt'), time.monotonic()
        self.before = self.file.stat().st_size if self.file.exists() else 0
        for process in self.processes:
            process.start()

    def said(self) -> str:
        """What its processes have said."""
        return self.file.read_bytes()[self.before :].decode(errors='replace')

    def running(self) -> bool:
        """Whether all processes are."""
        return all(process.is_alive() for process in self.processes)

    def wait(self, seconds: float) -> bool:
        """Whether all processes run on after ``seconds``."""
        multiprocessing.connection.wait([process.sentinel for process in self.processes], timeout=seconds)
        return self.running()

    def workers(self, rank: int) -> list[int]:
        """Processes of the loader of that process."""
        return children(self.processes[rank].pid)

    def kill(self, rank: int | None) -> list[int]:
        """SIGKILL to the process ``rank``, or to all; then what a launcher does to the others. Workers that outlive theirs."""
        workers = [worker for other in range(len(self.processes)) for worker in self.workers(other)]
        for process in self.processes if rank is None else [self.processes[rank]]:
            process.kill()
        self.end()
        deadline = time.monotonic() + 5
        while (left := [*filter(alive, workers)]) and time.monotonic() < deadline:
            time.sleep(0.005)
        return left

    def end(self, patience: float = ENDED) -> list[int]:
        """Exit codes, once all have ended: when one fails the others get SIGTERM, and SIGKILL ``patience`` seconds later."""
        multiprocessing.connection.wait([process.sentinel for process in self.processes])
        if any(process.exitcode for process in self.processes):
            self.send(signal.SIGTERM)
        deadline = time.monotonic() + patience
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0))
            if process.is_alive():
                process.kill()
                process.join()
        return [process.exitcode for process in self.processes]

    def send(self, number: int) -> None:
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)


def words(folder: Path) -> str:
    """The last that a run has said."""
    return Path(f'{folder}.txt').read_text()[-4000:]


def children(pid: int) -> list[int]:
    try:
        tasks = [*Path(f'/proc/{pid}/task').iterdir()]
        return [int(child) for task in tasks for child in (task / 'children').read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []


def alive(pid: int) -> bool:
    """Not ended; one that has ended may wait to be noticed by its parent."""
    return born(pid) is not None


def _live(rank: int, path: str, options: dict, folder: str, processes: int, port: int, hurts: dict) -> None:
    """The body of a process: what tools/train.py --resume does."""
    with open(f'{folder}.txt', 'a') as words:
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
    torch.set_num_threads(1)
    given = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    os.environ.update({name: str(value) for name, value in given.items()} if processes > 1 else {})
    from faults import HURTS

    from mmkernel.engine import load_config, train
    from mmkernel.engine.launch import leave_processes

    for name, value in hurts.items():
        HURTS[name](value)
    cfg = load_config(ROOT / 'configs' / path, options)
    cfg.default_hooks['probe'] = dict(type='OnlineProbeHook')
    cfg.work_dir = folder
    train(cfg, resume=True)
    leave_processes()
    sys.stdout.flush()
