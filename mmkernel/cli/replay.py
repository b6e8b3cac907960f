"""``mmkernel replay FILE``: the step that ended a run, once more, with a look at every value."""

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.markup import escape

from mmkernel.cli.diagnose import find_config
from mmkernel.cli.options import ConfigFile, Device, Json, Options, Out, options_of, usable_device
from mmkernel.cli.terminal import print_json, say
from mmkernel.engine.last_steps import read_stop
from mmkernel.engine.replaying import Replay, Replayed

FINITE = 3  # the exit code where nothing is bad this time
SHOWN = 8  # images of a long list in the terminal, and rows of a picture


def replay(
    file: Path,
    /,
    *,
    precision: Literal['as-run', 'float32', 'float64'] | None = None,
    rank: str = 'all',
    out: Out = None,
    json: Json = False,
    device: Device = 'auto',
    config: ConfigFile = None,
    cfg_options: Options = None,
) -> None:
    """Do the step again that ended a run with NaN or infinity, and name the first module with a bad value.

    Exit code: 0 where a bad value is found again, 3 where all are finite.

    Args:
        file: non_finite.pth of the log folder, or that folder.
        precision: default: as the run, and in float32 as well where that was half precision.
        rank: the rows of one process alone, by its number; all: those of all, joined.
        out: a picture (PNG) of the views of the bad images, at most 8; else of the first ones.
    """
    if rank != 'all' and not rank.isdecimal():
        raise ValueError(f"--rank is 'all' or the number of a process, got '{rank}'.")
    device = usable_device(device)
    content, records = read_stop(file)
    cfg, meta = find_config(file, content, config, options_of(cfg_options)), content['meta']
    again = Replay(cfg, content, records, device, None if rank == 'all' else int(rank))
    ran = cfg.get('optim_wrapper', {}).get('precision', 'float32')
    chosen = {'as-run': [ran], None: list(dict.fromkeys([ran, 'float32']))}.get(precision, [precision])
    done = [again.run(each) for each in chosen]
    images = sorted({i for each in done if each.found for i in each.found.images})
    if out:
        again.data.plot(str(out), (images or again.data.indices)[:SHOWN])
    if json:
        found = {key: meta[key] for key in ('iteration', 'epoch', 'loss', 'world_size', 'seed')}
        found |= dict(device=device, files={i: again.data.name(i) for i in images}, replays=[*map(asdict, done)])
        for each in found['replays']:  # JSON has no NaN
            each['losses'] = [{k: v if math.isfinite(v) else str(v) for k, v in one.items()} for one in each['losses']]
        print_json(found)
    else:
        for line in [_headline(again), *(line for each in done for line in _told(each, again)), *_compared(done)]:
            say(escape(line))
        if out:
            say(f'written: {escape(str(out))}')
    if not any(each.bad for each in done):
        sys.exit(FINITE)


def _headline(again: Replay) -> str:
    meta, W = again.meta, len(again.ranks)
    text = f'Iteration {meta["iteration"]}, epoch {meta["epoch"] + 1}, whose loss was {meta["loss"]}: '
    text += f'{len(again.data.indices)} images of {W} process(es)'
    if len(again.data.window) > 1:
        text += f', an accumulation window of {len(again.data.window)} batches'
    if W > 1:
        of = 'all, as SyncBN has them' if meta['batch_norm'] == 'all' else 'each process, as in the run'
        text += f'. Rows are joined in rank order; batch norm has the statistics of {of}'
    if absent := sorted({*range(meta['world_size'])} - set(again.ranks)):
        text += f'. The rows of the processes {absent} are left out, so losses differ from those of the run'
    return f'{text}.'


def _told(done: Replayed, again: Replay) -> list[str]:
    where = f'{done.precision} on {again.device}'
    parts = '; '.join(', '.join(f'{name} {value:.6g}' for name, value in losses.items()) for losses in done.losses)
    lines = [f'{where}: the step is finite.' if not done.bad else f'{where}:']
    if found := done.found:
        name = f'{found.module or "the model"} ({found.kind})'
        lines.append(f'  {SENTENCES[found.where].format(name=name, values=found.values)}')
        if len(again.data.window) > 1 and done.micro_batch is not None:
            lines.append(f'  batch {done.micro_batch} (from 0) of the window')
        if found.operation:
            lines.append(f'  operation {found.operation}' + (f', made by {found.code}' if found.code else ''))
        if found.views:
            lines.append(f'  views {", ".join(again.data.view_names(found.views))}')
        if found.images:
            more = f', and {len(found.images) - SHOWN} more' if len(found.images) > SHOWN else ''
            lines.append(f'  images {", ".join(f"{i} ({again.data.name(i)})" for i in found.images[:SHOWN])}{more}')
        for word, x in (found.inputs | {f'parameter {name}': x for name, x in found.parameters.items()}).items():
            span = 'no finite value' if x['min'] is None else f'{x["min"]:.4g} to {x["max"]:.4g}'
            bad = f', {x["share_not_finite"]:.2g} of them not finite' if x['share_not_finite'] else ''
            lines.append(f'  {word} {tuple(x["shape"])} {x["type"]}: {span}{bad}')
    if done.error and not (found and found.where == 'error'):
        lines.append(f'  It ended with {done.error}')
    return [*lines, f'  loss: {parts}'] if parts else lines


SENTENCES = dict(
    images='The images themselves are bad: {values}, before {name}.',
    output='The first bad value is in what {name} gives: {values}.',
    between='The first bad value comes from the code of {name} around its parts: {values}.',
    error='All values are finite until {name} ends the step: {values}.',
    gradient='All values of the forward pass are finite. The first bad gradient is in {name}: {values}.',
    norm='Each gradient is finite, and {values} is not. The largest is that of {name}.',
)


def _compared(done: list[Replayed]) -> list[str]:
    """Of half precision and float32."""
    half, full = done[0], done[-1]
    if half is full or not half.bad:
        return []
    where = f'at {half.found.module or "the model"}' if half.found else 'in the step'
    if full.bad:
        return [f'float32 fails as {half.precision} does {where}: it is not for want of range.']
    return [f'{half.precision} overflows here {where}; in float32 the step is finite.']
