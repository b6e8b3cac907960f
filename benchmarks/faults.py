"""What the soak does to a run, and how the run has to take it."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lives import ENDED, Life, alive, children
from PIL import Image
from small_runs import ROOT

from mmkernel.datasets import Digits
from mmkernel.datasets.folders import FileSource
from mmkernel.engine import load_config

QUOTA = 60_000  # bytes of a file: logs are smaller, checkpoints larger


def images(folder: Path, count: int = 320) -> dict[str, Any]:
    """The source of some digits as files in ``folder``."""
    digits = Digits(size=16)
    for i in range(count):
        path = folder / str(digits.labels[i]) / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(digits.read(i)).squeeze()).save(path)
    return dict(type='ImageFolder', root=str(folder), mode='L', labels=True, _delete_=True)


def ended(life: Life, folder: Path, codes: set[int], text: str = '', patience: float = ENDED) -> list[str]:
    """What is wrong with the end of a life: the first exit code and what it has said last."""
    found, said = life.end(patience), life.said()
    wrong = [] if codes & {*found} else [f'ended with {found}, expected {codes}: {said[-3000:]}']
    return wrong + ([f'"{text}" was not said: {said[-3000:]}'] if text not in said and any(found) else [])


def kill_a_worker(life: Life, folder: Path, rng: random.Random) -> list[str] | None:
    workers = [worker for rank in range(len(life.processes)) for worker in life.workers(rank)]
    if not workers:
        return None
    os.kill(rng.choice(workers), signal.SIGKILL)
    return ended(life, folder, {0, 1})  # 0: it was the last batch that it had to make


def kill_a_process(life: Life, folder: Path, rng: random.Random) -> list[str]:
    left = life.kill(rng.randrange(len(life.processes)))
    return [f'workers outlived their process: {left}'] if left else []


def spoil_images(life: Life, folder: Path, rng: random.Random) -> list[str]:
    """Half of all; they are as before when the life has ended."""
    files = sorted((folder.parent / 'images').rglob('*.png'))
    before = {path: path.read_bytes() for path in rng.sample(files, len(files) // 2)}
    try:
        for path, content in before.items():
            path.write_bytes(content[: len(content) // 2])
        return ended(life, folder, {0, 1}, 'cannot be decoded')
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def fill_the_quota(life: Life, folder: Path, rng: random.Random) -> list[str]:
    """No file of process 0 may grow beyond ``QUOTA`` any more."""
    resource.prlimit(life.processes[0].pid, resource.RLIMIT_FSIZE, (QUOTA, QUOTA))
    return ended(life, folder, {0, 1}, 'cannot be written')


def tell_to_stop(life: Life, folder: Path, rng: random.Random) -> list[str]:
    os.kill(rng.choice(life.processes).pid, rng.choice([signal.SIGTERM, signal.SIGUSR1]))
    return ended(life, folder, {0, 75, -signal.SIGTERM, -signal.SIGUSR1})  # the signals: before the run has begun


def pause(life: Life, folder: Path, rng: random.Random) -> None:
    pid = rng.choice(life.processes).pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(rng.uniform(0, 1))
    os.kill(pid, signal.SIGCONT)


def stop_for_good(life: Life, folder: Path, rng: random.Random) -> list[str] | None:
    """One of two processes answers no more: the other ends after ``dist_cfg.timeout``, then that one is killed."""
    if len(life.processes) == 1:
        return None
    os.kill(rng.choice(life.processes).pid, signal.SIGSTOP)
    return ended(life, folder, {0, 1}, patience=5)


def age_files(life: Life, folder: Path, rng: random.Random) -> None:
    """The newest checkpoints become the oldest by the clock of the file system."""
    for age, path in enumerate(sorted(folder.glob('*.pth'), key=lambda path: path.stat().st_mtime)):
        os.utime(path, (10**9 - 1000 * age,) * 2)


FAULTS: dict[str, Callable] = {
    'a worker is killed': kill_a_worker,
    'a process is killed': kill_a_process,
    'images are cut': spoil_images,
    'quota is full': fill_the_quota,
    'SIGTERM or SIGUSR1': tell_to_stop,
    'a process is paused': pause,
    'a process is stopped for good': stop_for_good,
    'dates of files go back': age_files,
}
LAUNCHER, SLOW, CLOCK = 'the launcher is killed', 'slow reads', 'the clock goes back'


def kill_the_launcher(given: dict, folder: Path, rng: random.Random) -> list[str]:
    """Start by tools/dist_train.sh, kill torchrun and the script; its processes have to end."""
    cfg = load_config(ROOT / 'configs' / given['path'], given['options'] | {'launcher': 'none'})
    cfg.default_hooks['probe'] = dict(type='OnlineProbeHook')
    file = folder.with_name(f'{folder.name}_config.py')
    cfg.dump(file)
    script = ['bash', ROOT / 'tools/dist_train.sh', file, str(given['processes']), '--work-dir', folder, '--resume']
    before = {*folder.glob('*.pth')}
    own = {**os.environ, 'PYTHON': sys.executable, 'CUDA_VISIBLE_DEVICES': ''}
    with open(f'{folder}.txt', 'a') as said:
        run = subprocess.Popen([*map(str, script)], env=own, stdout=said, stderr=said, start_new_session=True)
    while run.poll() is None and {*folder.glob('*.pth')} <= before:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 1))
    launchers = [pid for pid in children(run.pid) if 'torch.distributed.run' in _command(pid)]
    processes = [pid for launcher in launchers for pid in children(launcher)]
    processes += [worker for pid in processes for worker in children(pid)]
    for pid in [run.pid, *launchers]:
        os.kill(pid, signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + ENDED
    while (left := [*filter(alive, processes)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return [f'{len(left)} processes lived on without their launcher'] if left else []


def _command(pid: int) -> str:
    return Path(f'/proc/{pid}/cmdline').read_text().replace('\0', ' ') if alive(pid) else ''


def read_slowly(seconds: float) -> None:
    """One read in ten waits."""
    read = FileSource.read

    def slow(source: FileSource, i: int) -> np.ndarray:
        time.sleep(seconds * (i % 10 == 0))
        return read(source, i)

    FileSource.read = slow


def set_the_clock_back(seconds: float) -> None:
    """The wall clock of the process goes back a second after its start."""
    clock, start = time.time, time.monotonic()
    time.time = lambda: clock() - seconds * (time.monotonic() > start + 1)


HURTS = {SLOW: read_slowly, CLOCK: set_the_clock_back}
