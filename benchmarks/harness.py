"""How the benchmarks measure: forms of one computation, alternated in one process; peak memory of each in a process of its own.

Time: single-thread CPU time of the process (``time.process_time``), or CUDA events where a GPU is. Forms alternate A, B, A,
B, ...; the first round warms up and does not count; the median of the others is reported.

Memory: on a CPU, the kernel's peak of resident memory during one repetition, reset before it, minus what was resident
before; in a fresh process whose allocator returns every block of 64 KiB or more to the system (MALLOC_MMAP_THRESHOLD_), after
one repetition that warms up. On a GPU, ``max_memory_allocated`` minus what was allocated before. Gradients of the inputs
count, the inputs themselves do not.
"""

from __future__ import annotations

import argparse
import ctypes
import fnmatch
import gc
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from tables import print_table

from mmkernel.writing import replacing

Step = Callable[[], Any]  # one repetition
Maker = Callable[[torch.device], Step]  # makes the inputs and returns the repetition on them
PACKAGES = ('mmkernel', 'torch', 'numpy', 'mmengine', 'timm', 'faiss-cpu', 'lightly', 'stable-pretraining')


@dataclass
class Case:
    """Forms of one computation. Goals are ratios textbook / ours, ``memory_limit`` is in bytes, for ours.

    ``skip`` says why a form is not run here.
    """

    name: str
    forms: dict[str, Maker]
    time_goal: float | None = None
    memory_goal: float | None = None
    memory_limit: int | None = None
    skip: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def makers(self) -> dict[str, Maker]:
        return {form: maker for form, maker in self.forms.items() if form not in self.skip}


def arguments(description: str, argv: list[str] | None, **extra: dict) -> argparse.Namespace:
    """The options that every benchmark takes, and ``extra`` ones: name=dict(default=..., help=...)."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='tiny sizes and two rounds: does it run at all')
    parser.add_argument('--rounds', type=int, default=6, help='repetitions of each form; the first does not count')
    parser.add_argument('--only', default='*', metavar='PATTERN', help='cases whose name matches, e.g. "*q=8192*"')
    parser.add_argument('--no-memory', action='store_true', help='leave out the peaks, each of which is a process')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the results there')
    parser.add_argument('--peak', nargs=2, metavar=('CASE', 'FORM'), help=argparse.SUPPRESS)  # the process of one peak
    for name, settings in extra.items():
        parser.add_argument(f'--{name.replace("_", "-")}', **settings)
    return parser.parse_args(argv)


def measure(script: str, cases: list[Case], args: argparse.Namespace) -> list[dict]:
    """Times and peaks of all chosen cases; prints the table and writes the JSON. With --peak, one peak instead."""
    torch.set_num_threads(1)
    device = torch.device(args.device)
    if args.peak:
        case = next(case for case in cases if case.name == args.peak[0])
        print(f'peak {peak_of(case.forms[args.peak[1]](device), device)}')
        return []
    rows = []
    for case in cases:
        if fnmatch.fnmatch(case.name, args.only):
            print(f'{case.name} ...', file=sys.stderr, flush=True)
            rows.append(row_of(script, case, args, device))
            write(script, args, rows=rows)  # so that a run that is cut short leaves what it has
    report(script, args, rows=rows)
    return rows


def row_of(script: str, case: Case, args: argparse.Namespace, device: torch.device) -> dict:
    """Everything that is known of a case after it was measured."""
    seconds, values = alternate(case.makers(), 2 if args.quick else args.rounds, device)
    peaks = {} if args.no_memory else {form: peak(script, case, form, args, device) for form in case.makers()}
    forms = {
        form: dict(seconds=statistics.median(times), all_seconds=times, peak_bytes=peaks.get(form), value=values[form])
        for form, times in seconds.items()
    }
    row = dict(case=case.name, forms=forms, skipped=case.skip, info=case.info, memory_limit=case.memory_limit)
    for word, key, goal in (('time', 'seconds', case.time_goal), ('memory', 'peak_bytes', case.memory_goal)):
        textbook, ours = (forms.get(form, {}).get(key) for form in ('textbook', 'ours'))
        ours = max(ours, 2**20) if key == 'peak_bytes' and ours is not None else ours  # below 1 MiB it is the allocator
        row[f'{word}_ratio'] = textbook / ours if textbook and ours else None
        row[f'{word}_goal'] = goal
    return row


def alternate(makers: dict[str, Maker], rounds: int, device: torch.device) -> tuple[dict[str, list[float]], dict]:
    """Seconds of each repetition of each form, A, B, A, B, ..., without the first round; and what each form returned."""
    steps = {form: maker(device) for form, maker in makers.items()}
    seconds: dict[str, list[float]] = {form: [] for form in steps}
    values: dict[str, Any] = {}
    for _ in range(rounds):
        for form, step in steps.items():
            elapsed, values[form] = seconds_of(step, device)
            seconds[form].append(elapsed)
    return {form: times[1:] if len(times) > 1 else times for form, times in seconds.items()}, values


def seconds_of(step: Step, device: torch.device) -> tuple[float, Any]:
    """CPU time of one repetition, or the time between two CUDA events around it; and what it returned."""
    if device.type == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        value = step()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000, value
    start = time.process_time()
    value = step()
    return time.process_time() - start, value


def peak(script: str, case: Case, form: str, args: argparse.Namespace, device: torch.device) -> int:
    """A GPU's allocator counts for itself; on a CPU the counter is the process's, so each form gets one of its own."""
    if device.type == 'cuda':
        return peak_of(case.forms[form](device), device)
    return peak_in_process(script, case.name, form, args)


def peak_in_process(script: str, case: str, form: str, args: argparse.Namespace) -> int:
    """``peak_of`` in a fresh process of the same script."""
    command = [sys.executable, script, '--peak', case, form, '--device', args.device]
    command += ['--quick'] if args.quick else []
    command += ['--sweep'] if getattr(args, 'sweep', False) else []
    environment = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': '65536', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}')
    return int(done.stdout.split('peak ')[-1])


def peak_of(step: Step, device: torch.device) -> int:
    """Bytes by which one repetition raises the peak of memory above what is in use before it."""
    step()
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')  # the peak becomes what is resident now
    before = _status('VmRSS')
    step()
    return _status('VmHWM') - before


def _status(key: str) -> int:
    """Bytes that the kernel names ``key`` for this process."""
    line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def gradient_step(loss: Callable[..., torch.Tensor], *leaves: torch.Tensor) -> Step:
    """One forward and backward pass of ``loss(*leaves)``; the gradients are dropped before the next."""

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves).backward()
        for leaf in leaves:
            leaf.grad = None

    return step


def report(script: str, args: argparse.Namespace, **content: list) -> None:
    """The table on the screen and the JSON. ``content``: rows, or columns and lines."""
    print_table(write(script, args, **content))


def write(script: str, args: argparse.Namespace, **content: list) -> dict:
    """The result with what is needed to repeat it, in the file of ``--json`` if one is given."""
    name = Path(script).stem + (', on a GPU' if args.device.startswith('cuda') else '')
    result = publishable({'benchmark': name, **circumstances(args.device), **content})
    if args.json:
        with replacing(args.json) as partial:  # a run may be cut short while it writes
            partial.write_text(json.dumps(result, indent=1, allow_nan=False) + '\n')
    return result


def circumstances(device: str) -> dict:
    """Command, commit, versions and hardware."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return dict(
        command=' '.join(['python', f'{Path(__file__).resolve().parent.name}/{Path(sys.argv[0]).name}', *sys.argv[1:]]),
        commit=commit(),
        python=platform.python_version(),
        versions=dict(versions, torch=torch.__version__),
        hardware=torch.cuda.get_device_name() if device.startswith('cuda') else _processor(),
        threads=torch.get_num_threads(),
        clock='CUDA events' if device.startswith('cuda') else 'CPU time of the process',
        date=time.strftime('%Y-%m-%d'),
    )


def commit() -> str | None:
    """Of the checkout, or what COMMIT says where the code was copied without its history."""
    if os.environ.get('COMMIT'):
        return os.environ['COMMIT']
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(['git', '-C', root, 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def publishable(value: Any) -> Any:
    """What JSON can hold: a number that is not finite becomes null; of an absolute path the last name stays."""
    if isinstance(value, dict):
        return {key: publishable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [publishable(item) for item in value]
    if isinstance(value, str):
        return re.sub(r'(?<![\w.~/-])/(?:[^\s/\'":,;()<>]+/)+', '', value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _processor() -> str:
    """The processor's name, with what matters for matrix products."""
    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').is_file() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return f'{names[0] if names else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}'
