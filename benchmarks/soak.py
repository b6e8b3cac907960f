"""Runs that are hurt at random moments end with the bits of an uninterrupted one; memory and open files stay as they are.

python benchmarks/soak.py --kills 200 --json benchmarks/results/kills.json      # SIGKILL alone
python benchmarks/soak.py --minutes 15 --json benchmarks/results/soak.json      # every fault of faults.py

Runs are short (64 batches, a file every third step) and start in processes that are forked from a server, half a second each.
Beside them one long run goes on, whose reads are slow, whose clock goes back and which is paused: its memory and its open files
are counted once a second, and the slope is that of a straight line through all but the first quarter. --seed chooses moments
and faults; what a moment meets depends on the machine.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from faults import CLOCK, FAULTS, LAUNCHER, SLOW, images, kill_the_launcher, pause
from harness import arguments, report, write
from kills import CASES, judged, kills, whole
from lives import Life, case, load_server, words

NAME = 'soak'
MOST = 12  # faults of one run, which is then left alone, so that it ends
PAGE = os.sysconf('SC_PAGE_SIZE') / 2**20
COLUMNS = ('fault', 'times', 'taken as promised', 'survived bit for bit')


def cases(source: dict) -> list[dict]:
    options = {'train_dataloader.dataset.source': source, 'env_cfg.dist_cfg.timeout': 15.0}
    return [
        case('moco/digits_v2.py', 1, 'persistent', accumulation=2, **options),
        case('deepcluster/digits_v2.py', 2, 2, **options),
        case('simclr/digits.py', 1, 2, virtual=2, **options),
        case('swav/digits_queue.py', 2, 0, virtual=2, **options),
    ]


def hurt(
    given: dict, folder: Path, seconds: float, rng: random.Random, launcher: bool
) -> tuple[Counter, Counter, list[str]]:
    """Start, hurt and start again, up to ``MOST`` times: how often each fault came and was taken as promised; what was wrong."""
    times, right, wrong = Counter(), Counter(), []

    def note(fault: str, found: list[str] | None) -> None:
        times[fault] += 1
        right[fault] += not found
        wrong.extend(f'{fault}: {text}' for text in found or ())

    if launcher:
        note(LAUNCHER, kill_the_launcher(given, folder, rng))
    while True:
        hurts = {name: value for name, value in ((SLOW, 0.05), (CLOCK, 3e5)) if rng.random() < 0.2}
        life = Life(given, folder, hurts)
        for fault in hurts:
            note(fault, None)
        ended = False
        while not ended and times.total() < MOST and life.wait(rng.uniform(0, seconds / 2)):
            fault = rng.choice([*FAULTS])
            found = FAULTS[fault](life, folder, rng)
            ended = not any(process.is_alive() for process in life.processes)
            note(fault, found)
        if not ended:
            codes = life.end()
            return times, right, [*wrong, f'ended with {codes}: {words(folder)}'] if any(codes) else wrong


class Steady:
    """A run that goes on all the time; ``samples``: (seconds, MiB resident, open files, threads) of its process."""

    def __init__(self, given: dict, folder: Path, seed: int) -> None:
        self.life, self.folder = Life(given, folder, {SLOW: 0.01, CLOCK: 3e5}), folder
        self.samples, self.rng, self.done = [], random.Random(seed), threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        process = Path(f'/proc/{self.life.processes[0].pid}')
        while not self.done.wait(1) and self.life.running():
            resident = int((process / 'statm').read_text().split()[1]) * PAGE
            files, threads = len(os.listdir(process / 'fd')), len(os.listdir(process / 'task'))
            self.samples.append((time.monotonic() - self.life.begun, resident, files, threads))
            if self.rng.random() < 0.02:
                pause(self.life, self.folder, self.rng)

    def end(self) -> dict:
        """``slopes``, and the exit code once the run has been told to stop."""
        found = self.slopes()
        self.done.set()
        self.thread.join()
        self.life.send(signal.SIGTERM)
        return dict(found, exit=self.life.end())

    def slopes(self) -> dict:
        """Slopes a minute, and first and last values."""
        while len(self.samples) < 8 and self.life.running():  # a machine may be slow, and the soak short
            time.sleep(0.1)
        found = np.array(self.samples[len(self.samples) // 4 :])
        slopes = np.polyfit(found[:, 0] / 60, found[:, 1:], 1)[0]
        ends = [found[part, 1:].mean(0).tolist() for part in (slice(None, 30), slice(-30, None))]
        named = {
            name: dict(a_minute=float(slope), first=first, last=last)
            for name, slope, first, last in zip(('MiB', 'open files', 'threads'), slopes, *ends, strict=True)
        }
        return dict(slopes=named, minutes=float(found[-1, 0] - found[0, 0]) / 60)


def soak(args: Namespace, folder: Path) -> list[dict]:
    rng, source = random.Random(args.seed), images(folder / 'images')
    given = cases(source)[: 2 if args.quick else None]
    with ThreadPoolExecutor(len(given)) as pool:
        references = [*pool.map(whole, given, [folder / f'whole_{i}' for i in range(len(given))])]
    long = {'train_cfg.max_epochs': 10**6, 'default_hooks.checkpoint.every_minutes': 0.05}
    long = case(
        'moco/digits_v2.py',
        1,
        'persistent',
        **long,
        **{'train_dataloader.dataset.source': images(folder / 'steady_images')},
    )
    steady, until = Steady(long, folder / 'steady', args.seed), time.monotonic() + 60 * args.minutes
    times, right, survived, wrong, runs = Counter(), Counter(), Counter(), [], 0
    while not runs or time.monotonic() < until:
        i, here = runs % len(given), folder / f'run_{runs}'
        met, taken, found = hurt(given[i], here, references[i][1], rng, launcher=runs % 4 == 1)
        bits = judged(given[i], here, references[i][0])
        times, right, survived, runs = times + met, right + taken, survived + (Counter() if bits else met), runs + 1
        wrong += [f'run {runs}, {given[i]["name"]}: {text}' for text in found + bits]
        if not found + bits:
            shutil.rmtree(here)
        said = f'{survived.total()} of {times.total()}: {given[i]["name"]} {found + bits or ""}'
        print(said, file=sys.stderr, flush=True)
        write(NAME, args, **content(args, times, right, survived, wrong, runs, steady.slopes()))
    flat = steady.end()
    wrong += [] if flat['exit'] == [75] else [f'the long run ended with {flat["exit"]}: {words(steady.folder)}']
    result = content(args, times, right, survived, wrong, runs, flat)
    report(NAME, args, **result)
    print(f'{survived.total()} of {times.total()}; {len(wrong)} wrong')
    return [*result['rows'], *(dict(wrong=text) for text in wrong)]


def content(
    args: Namespace, times: Counter, right: Counter, survived: Counter, wrong: list[str], runs: int, flat: dict
) -> dict:
    """What is written, after each run: a soak may be cut short."""
    rows = [dict(fault=name, times=n, right=right[name], survived=survived[name]) for name, n in sorted(times.items())]
    ends = (
        f'{name} {of["first"]:.1f} to {of["last"]:.1f}, {of["a_minute"]:+.3f} a minute'
        for name, of in flat['slopes'].items()
    )
    lines = [[row['fault'], *(str(row[k]) for k in ('times', 'right', 'survived'))] for row in rows]
    setting = f'Seed {args.seed}, {runs} runs. The long run, over {flat["minutes"]:.1f} minutes: {"; ".join(ends)}.'
    return dict(
        columns=COLUMNS, rows=rows, lines=lines, seed=args.seed, runs=runs, wrong=wrong, steady=flat, clock='wall clock',
        setting=setting,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> list[dict]:
    args = arguments(
        __doc__,
        argv,
        kills=dict(type=int, default=0, metavar='N', help='kill runs N times'),
        minutes=dict(type=float, default=15, help='of all faults, without --kills'),
        jobs=dict(type=int, default=1, metavar='N', help='runs that are killed at once'),
        seed=dict(type=int, default=0, help='of the moments'),
        folder=dict(type=Path, metavar='FOLDER', help='where runs are left that went wrong; default: a temporary one'),
    )
    load_server()
    folder = args.folder or Path(tempfile.mkdtemp(prefix='soak_'))
    rows = kills(args, CASES[:2] if args.quick else CASES, folder) if args.kills else soak(args, folder)
    if not any(row.get('wrong') for row in rows):
        shutil.rmtree(folder)
    return rows


if __name__ == '__main__':
    main()
