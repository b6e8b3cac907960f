"""SIGKILL at random moments of runs that save every third step; started again, they end with the bits of an uninterrupted one."""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import time
from argparse import Namespace
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from harness import report, write
from lives import Life, case, words
from small_runs import differences

CASES = [  # processes, workers, accumulation, virtual batch: each pair of two of them at least once; heads with state
    case('moco/digits_v2.py', 1, 0, accumulation=2),
    case('deepcluster/digits_v2.py', 2, 'persistent'),
    case('swav/digits_queue.py', 1, 2, virtual=2),
    case('byol/digits.py', 2, 0, accumulation=2),
    case('simclr/digits.py', 1, 'persistent', virtual=2),
    case('moco/digits_v2.py', 2, 2),
    case('deepcluster/digits_v1.py', 1, 2, accumulation=2),
    case('swav/digits_queue.py', 2, 0, virtual=2),
    case('corinfomax/digits.py', 1, 0),
    case('wmse/digits_2views.py', 2, 'persistent', virtual=2),
    case('dbn/digits_shuffled_dbn.py', 1, 'persistent', accumulation=2),
    case('deepcluster/digits_v2.py', 1, 0, **{'default_hooks.checkpoint.every_minutes': 0.003}),
]
NAME = 'soak, kills'
MOST = 20  # kills of one run, which is then left alone, so that it ends
COLUMNS = ('run', 'kills', 'runs', 'while starting', 'between files', 'in a file', 'seconds', 'survived')


def whole(given: dict, folder: Path) -> tuple[Path, float]:
    """The last checkpoint of an uninterrupted run, and how many seconds it took."""
    life = Life(given, folder)
    if any(codes := life.end()):
        raise RuntimeError(f'{given["name"]} ended with {codes}:\n{words(folder)}')
    return folder / f'epoch_{given["options"]["train_cfg.max_epochs"]}.pth', time.monotonic() - life.begun


def killed(given: dict, folder: Path, seconds: float, most: int, rng: random.Random) -> tuple[Counter, list[str]]:
    """Kill a run up to ``most`` times and let it end: where kills have met it, and what went wrong."""
    found, wrong = Counter(), []
    while True:
        before, life = {*folder.glob('*.pth')}, Life(given, folder)
        if found.total() < most and moment(life, folder, before, seconds, rng):
            left = life.kill(rng.choice([None, *range(given['processes'])]))
            wrong += [f'workers outlived their process: {left}'] if left else []
            begun = {*folder.glob('*.pth')} - before
            found['in a file' if [*folder.glob('.*.tmp')] else 'between files' if begun else 'while starting'] += 1
        elif any(codes := life.end()):
            return found, [*wrong, f'ended with {codes}: {words(folder)}']
        else:
            return found, wrong


def moment(life: Life, folder: Path, before: set[Path], seconds: float, rng: random.Random) -> bool:
    """Wait for one; False if the life has ended before. Half of them count from its start, half from the first file that it writes.

    A quarter then wait until a file is being written. All are early enough for many kills on the way of one run.
    """

    def until(pattern: str, limit: float) -> None:
        deadline = time.monotonic() + limit
        while life.running() and time.monotonic() < deadline and {*folder.glob(pattern)} <= before:
            time.sleep(0.002)

    if rng.random() < 0.5:
        until('epoch_*.pth', 60)
    life.wait(rng.uniform(0, seconds / 3))
    if rng.random() < 0.25:
        until('.*.tmp', 2)
    return life.running()


def judged(given: dict, folder: Path, reference: Path) -> list[str]:
    """What is wrong with a run that has ended."""
    if not (folder / reference.name).is_file():
        return [f'there is no {reference.name}: {words(folder)}']
    wrong = [f'another value of {name}' for name in differences(folder / reference.name, reference)[:5]]
    kept, most = len([*folder.glob('epoch_*.pth')]), given['options']['default_hooks.checkpoint.max_keep']
    wrong += [f'{kept} files are kept, not {most}'] if kept != most else []
    return wrong + [f'{path.name} is left' for path in folder.glob('.*.tmp')]


def kills(args: Namespace, cases: list[dict], folder: Path) -> list[dict]:
    """``args.kills`` kills of runs of all cases in turn, ``args.jobs`` at once."""
    start, rows, lock, turns = (
        time.monotonic(),
        [dict(case=given['name']) for given in cases],
        Lock(),
        itertools.count(),
    )
    content, left = dict(columns=COLUMNS, seed=args.seed, rows=rows, clock='wall clock'), args.kills
    with ThreadPoolExecutor(args.jobs) as pool:
        places = [folder / f'whole_{i}' for i in range(len(cases))]
        references = [*pool.map(whole, cases, places)]

    def go() -> None:
        nonlocal left
        while True:
            with lock:
                if not (most := min(MOST, left, -(-args.kills // len(cases)))):
                    return
                left, turn = left - most, next(turns)
            given, (reference, seconds) = (x[turn % len(cases)] for x in (cases, references))
            begun, here = time.monotonic(), folder / f'run_{turn}'
            met, wrong = killed(given, here, seconds, most, random.Random(f'{args.seed} {turn}'))
            wrong += judged(given, here, reference)
            if not wrong:
                shutil.rmtree(here)
            with lock:
                left += most - met.total()
                note(rows[turn % len(cases)], met, wrong, time.monotonic() - begun)
                content.update(summary(rows, args.seed, (time.monotonic() - start) / 60))
                print(f'{content["setting"]} {given["name"]} {wrong or ""}', file=sys.stderr, flush=True)
                write(NAME, args, **content, lines=lines_of(rows))

    with ThreadPoolExecutor(args.jobs) as pool:
        for job in [pool.submit(go) for _ in range(args.jobs)]:
            job.result()
    report(NAME, args, **content, lines=lines_of(rows))
    print(f'{content["survived"]} of {content["kills"]}')
    return rows


def note(row: dict, met: Counter, wrong: list[str], seconds: float) -> None:
    """Add a run to the row of its case. If anything is wrong with it, none of its kills counts as survived."""
    row['met'] = dict(Counter(row.get('met', {})) + met)
    row['wrong'] = row.get('wrong', []) + wrong
    more = dict(kills=met.total(), survived=0 if wrong else met.total(), runs=1, seconds=seconds)
    row.update({key: row.get(key, 0) + value for key, value in more.items()})


def summary(rows: list[dict], seed: int, minutes: float) -> dict:
    survived, total = (sum(row.get(key, 0) for row in rows) for key in ('survived', 'kills'))
    text = f'Seed {seed}; {survived} of {total} kills survived in {minutes:.0f} minutes.'
    return dict(survived=survived, kills=total, minutes=minutes, setting=text)


def lines_of(rows: list[dict]) -> list[list[str]]:
    done = [row for row in rows if 'runs' in row]
    where = COLUMNS[3:6]
    return [
        [row['case'], *(str(row[key]) for key in ('kills', 'runs')), *(str(row['met'].get(key, 0)) for key in where),
         f'{row["seconds"]:.0f}', str(row['survived'])]
        for row in done
    ]  # fmt: skip
