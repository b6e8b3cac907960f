"""The objectives on a GPU: the textbook as its authors run it and compiled, ours eager, compiled and as a CUDA graph.

``python benchmarks/losses.py --device cuda`` runs it. Time is that between two CUDA events around one forward and backward
pass at the embeddings, host time included; forms alternate; medians. Peaks count the gradients, not the inputs. Every figure
is written as soon as it is known, eager forms of all cases first, for compiling takes most of the time.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial

import torch
from harness import Step, gradient_step, seconds_of, write
from torch import Tensor

from mmkernel.kernels import LegendreKernel, kernel_energy

Loss = Callable[..., Tensor]  # of one (2, n, q) tensor, or of two views
WARM_UP, ROUNDS = 3, 10
FORMS = (
    'textbook',
    'textbook, autocast',
    'textbook, autocast, compiled',
    'ours, float32',
    'ours, bfloat16',
    'ours, bfloat16, compiled',
    'ours, bfloat16, compiled, graph',
)
COLUMNS = ('case', *FORMS, 'goal', 'MiB, textbook compiled', 'MiB, ours compiled')
LATE = ('compiled', 'graph')  # how the names of the forms of the second pass end
KERNEL_ROWS = (65536, 768)
GOALS = {  # ms
    'SFRIK L=3 n=1024 q=8192': 0.6,
    'VICReg n=1024 q=8192': 0.6,
    'SFRIK L=3 n=2048 q=32768': 4,
    'VICReg n=2048 q=32768': 4,
    'NT-Xent n=4096 q=128': 1.3,
    f'energy N={KERNEL_ROWS[0]} q={KERNEL_ROWS[1]}': 49,
}
CASES = [  # those with a goal first: compiling goes on until the time is over
    ('SFRIK L=3', 1024, 8192),
    ('VICReg', 1024, 8192),
    ('NT-Xent', 4096, 128),
    ('SFRIK L=3', 2048, 32768),
    ('VICReg', 2048, 32768),
    ('Barlow Twins', 1024, 8192),
    ('NT-Xent', 1024, 8192),
    ('SFRIK L=1', 2048, 8192),
    ('Barlow Twins', 2048, 512),
    ('VICReg', 256, 16384),
]


def switched(word: str, loss: Loss) -> Loss:
    """``loss`` with the switch of mmkernel.kernels.fused at ``word``."""

    def call(*views: Tensor) -> Tensor:
        os.environ['MMKERNEL_COMPILE'] = word
        return loss(*views)

    return call


def autocast(loss: Loss, device: torch.device) -> Loss:
    def call(*views: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return loss(*views)

    return call


def forms_of(textbook: Loss | None, ours: Callable[[str], Loss], z: Tensor) -> dict[str, tuple[Callable, tuple]]:
    """name -> (maker of the loss, its inputs). Those of the second pass are compiled."""
    views = () if textbook is None else tuple(view.detach().clone().requires_grad_() for view in z)
    z, device = z.detach().clone().requires_grad_(), z.device
    half = ours('bfloat16')
    forms = {
        'ours, float32': (lambda: switched('0', ours('float32')), (z,)),
        'ours, bfloat16': (lambda: switched('0', half), (z,)),
        'ours, bfloat16, compiled': (lambda: switched('1', half), (z,)),
        'ours, bfloat16, graph': (lambda: captured(switched('0', half), z), (z,)),
        'ours, bfloat16, compiled, graph': (lambda: captured(switched('1', half), z), (z,)),
    }
    if textbook is None:
        return forms
    plain = {
        'textbook': (lambda: textbook, views),
        'textbook, autocast': (lambda: autocast(textbook, device), views),
        'textbook, autocast, compiled': (lambda: autocast(torch.compile(textbook, dynamic=False), device), views),
    }
    return plain | forms


def captured(loss: Loss, z: Tensor) -> Loss:
    """``loss`` whose forward and backward passes are CUDA graphs."""
    if not z.is_cuda:
        raise RuntimeError('CUDA graphs need a GPU.')
    return torch.cuda.make_graphed_callables(loss, (z,))


def measured(forms: dict[str, tuple[Callable, tuple]], rounds: int, device: torch.device) -> dict[str, dict]:
    """name -> median and all times in ms, peak in MiB; or the error."""
    found, steps = {}, {}
    for name, (make, leaves) in forms.items():
        started = time.perf_counter()
        try:
            loss = make()
            step, value = gradient_step(loss, *leaves), loss(*leaves).item()
            for _ in range(WARM_UP):
                step()
            peak = peak_mib(step, device)
        except Exception as error:
            found[name] = dict(error=f'{type(error).__name__}: {str(error)[:300]}')
            print(f'  {name}: {found[name]["error"]}', file=sys.stderr, flush=True)
            continue
        steps[name], found[name] = step, dict(value=value, peak_mib=peak, first_s=time.perf_counter() - started, ms=[])
    for _ in range(rounds):
        for name, step in steps.items():
            found[name]['ms'].append(1000 * seconds_of(step, device)[0])
    for name in steps:
        found[name]['median_ms'] = statistics.median(found[name]['ms'])
        print(
            f'  {name}: {found[name]["median_ms"]:.3f} ms, {found[name]["peak_mib"]} MiB', file=sys.stderr, flush=True
        )
    return found


def peak_mib(step: Step, device: torch.device) -> float | None:
    if device.type != 'cuda':
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def profile(step: Step, device: torch.device) -> list[str]:
    """The kernels of a repetition that take longest: microseconds, count, name."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == 'cuda':
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step()
        if device.type == 'cuda':
            torch.cuda.synchronize()
    on_device = device.type == 'cuda'
    events = [
        (event.self_device_time_total if on_device else event.self_cpu_time_total, event.count, event.key[:90])
        for event in profiler.key_averages()
        if not on_device or event.device_type == torch.autograd.DeviceType.CUDA
    ]
    lines = [f'{time:.0f} us x{count} {name}' for time, count, name in sorted(events, reverse=True)[:14]]
    return [f'{sum(e[0] for e in events):.0f} us in {sum(e[1] for e in events)} kernels', *lines]


def cases(objectives: dict, two_views: Callable, head_loss: Callable, quick: bool, device: torch.device) -> dict:
    """name -> maker of its forms."""

    def case(objective: str, n: int, q: int) -> dict:
        textbook, head = objectives[objective](q)

        def ours(precision: str) -> Loss:
            return partial(head_loss, head(precision=precision).to(device))

        return forms_of(textbook, ours, two_views(n, q, device))

    def energy(N: int, q: int) -> dict:
        kernel = LegendreKernel((1.0, 40.0, 40.0))
        z = torch.randn(N, q, generator=torch.Generator().manual_seed(0)).to(device, torch.bfloat16)
        forms = forms_of(None, lambda precision: partial(kernel_energy, kernel=kernel, precision=precision), z)
        return {name: form for name, form in forms.items() if 'float32' not in name and 'graph' not in name}

    if quick:
        return {'SFRIK L=3 n=24 q=16': partial(case, 'SFRIK L=3', 24, 16), 'energy N=64 q=8': partial(energy, 64, 8)}
    name = f'energy N={KERNEL_ROWS[0]} q={KERNEL_ROWS[1]}'
    found = {f'{o} n={n} q={q}': partial(case, o, n, q) for o, n, q in CASES[:5]} | {
        name: partial(energy, *KERNEL_ROWS)
    }
    return found | {f'{o} n={n} q={q}': partial(case, o, n, q) for o, n, q in CASES[5:]}


def lines_of(rows: list[dict]) -> list[list[str]]:
    """The table of ``tables.py``: ms, and MiB of the textbook's compiled form and of ours; * where ours misses its goal."""
    lines = []
    for row in rows:
        found, cells = {**row.get('compiled', {}), **row['forms']}, [row['case']]
        for name in FORMS:
            ms = found.get(name, {}).get('median_ms')
            missed = row['goal_ms'] and ms and name.startswith('ours, bfloat16, compiled') and ms > row['goal_ms']
            cells.append('' if ms is None else f'{ms:.3g}{" *" if missed else ""}')
        peaks = (
            found.get(name, {}).get('peak_mib') for name in ('textbook, autocast, compiled', 'ours, bfloat16, compiled')
        )
        goal = '' if row['goal_ms'] is None else f'{row["goal_ms"]:g}'
        lines.append([*cells, goal, *('' if peak is None else f'{peak:.0f}' for peak in peaks)])
    return lines


def main(script: str, args: Namespace, makers: dict) -> list[dict]:
    """Eager forms of all cases, then the compiled ones and profiles, case by case until ``--limit-s``."""
    device, started = torch.device(args.device), time.perf_counter()
    rounds = 2 if args.quick else ROUNDS
    rows = [dict(case=name, goal_ms=GOALS.get(name), forms={}, profiles={}) for name in makers]
    for late in (False, True):
        for row in rows:
            if late and time.perf_counter() - started > args.limit_s:
                row['note'] = 'no compiled forms: the time was over'
                continue
            print(f'{row["case"]} ({time.perf_counter() - started:.0f} s)', file=sys.stderr, flush=True)
            torch._dynamo.reset()  # static shapes for every case
            forms = makers[row['case']]()
            chosen = {n: form for n, form in forms.items() if n.endswith(LATE) == late}
            if late:
                chosen['ours, bfloat16'] = forms['ours, bfloat16']  # once more, beside them
            row['compiled' if late else 'forms'] = measured(chosen, rounds, device)
            if late:
                for name in ('ours, bfloat16', 'ours, bfloat16, compiled'):
                    make, leaves = chosen[name]
                    row['profiles'][name] = profile(gradient_step(make(), *leaves), device)
            write(script, args, rows=rows, columns=list(COLUMNS), lines=lines_of(rows))
            del forms, chosen
            if device.type == 'cuda':
                torch.cuda.empty_cache()
    os.environ.pop('MMKERNEL_COMPILE', None)
    return rows
