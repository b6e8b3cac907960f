"""The tables of memory of a dry run; and what to change where a step does not fit, with the bytes that it was counted to bring."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config

from mmkernel.engine import check_config
from mmkernel.engine.config import check_virtual_batch
from mmkernel.planning.bytes_per_rank import readable
from mmkernel.planning.counted_step import NotCounted, count_step
from mmkernel.planning.problems import words

SIZES = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12, 'KI': 2**10, 'MI': 2**20, 'GI': 2**30, 'TI': 2**40}


def read_bytes(text: str) -> int:
    """'80GB' -> 80 * 10**9, '40 GiB' -> 40 * 2**30. ValueError for another text, and for nothing."""
    found = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*', text.upper())
    if not found or found[2] not in SIZES or not float(found[1]):
        raise ValueError(f"'{text}' is not a size of memory; expected 80GB, 40GiB, ...")
    return int(float(found[1]) * SIZES[found[2]])


def memory_here() -> int | None:
    """Of this machine's first GPU, or None."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def changes(cfg: Config, W: int) -> Iterator[tuple[dict[str, Any], str]]:
    """(keys of a config, what they cost) that may make a step smaller, and that ``cfg`` does not have."""
    loader, several = cfg.train_dataloader, check_virtual_batch(cfg, W)
    batch, head, neck = loader.batch_size, cfg.model.get('head') or {}, cfg.model.get('neck') or {}
    of_float16 = cfg.optim_wrapper.get('precision') == 'float16'  # which takes no shards
    half = {'optim_wrapper.precision': 'bfloat16'} if of_float16 else {}
    if not cfg.get('activation_checkpointing') and not cfg.get('compile'):
        yield {'activation_checkpointing': True}, 'a second forward pass of the backbone; bit for bit the same step'
    if batch % 2 == 0 and cfg.optim_wrapper.get('accumulative_counts', 1) == 1:
        smaller = {'train_dataloader.batch_size': batch // 2, 'train_cfg.virtual_batch': batch * W * several}
        yield smaller, 'a second forward pass of all; batch norm of smaller batches'
    if W > 1 and not neck.get('sharded'):
        yield {'model.neck.sharded': True, **half}, 'batch norm before the last layer is over all ranks'
    if W > 1 and not cfg.get('fsdp'):
        yield {'fsdp': True, **half}, 'weights of the encoder travel in each pass, forward and backward'
    for layout in ('columns', 'rows') if W > 1 else ():
        if head.get('layout', 'auto') != layout:
            yield {'model.head.layout': layout}, 'the same value; other bytes between ranks'


Rows = list[tuple[str, Any]]


def memory_tables(cfg: Config, plan: Any, count: bool, memory: int | None) -> Iterator[tuple[str, Rows]]:
    """(title, rows) of what rank 0 holds, of what it receives in a step, and of what to change if it is more than ``memory``.

    Estimated by formulas where a step cannot be counted, or shall not.
    """
    W, step, why = plan.world_size, None, ''
    try:
        step = count_step(cfg, W, plan.images) if count else None
    except NotCounted as error:
        why = f'; not counted: {error}'
    if step is None:
        sizes = plan.memory()
        title = f'Estimated memory per device, float32, without activations{why}'
        yield title, [*sizes.items(), ('sum', sum(sizes.values()))]
        return
    half = cfg.optim_wrapper.get('precision', 'float32') != 'float32'
    title = 'Memory of rank 0, counted in float32 on the meta device' + (
        '; in half precision activations are about half' if half else ''
    )
    yield title, [*step.held.items(), ('peak of a step', step.peak)]
    if W > 1:
        yield (
            f'Received by a rank in a step, {W} processes',
            [*step.received.items(), ('sum', sum(step.received.values()))],
        )
    if memory is not None:
        said = 'fits into' if step.peak <= memory else 'does not fit into'
        lines = [('peak of a step', f'{readable(step.peak)} {said} {readable(memory)}')]
        if step.peak > memory:
            lines += [
                (options, f'{readable(size)}{", fits" if size <= memory else ""}; {cost}')
                for options, size, cost in what_to_change(cfg, W, plan.images, step.peak, memory)
            ]
            if not half:
                lines.append(("optim_wrapper.precision='bfloat16'", 'not counted: activations of about half the bytes'))
        yield 'What to change, by --cfg-options' if len(lines) > 1 else 'Memory of the device', lines


def counted_with(cfg: Config, W: int, images: int | None, options: dict[str, Any]) -> int | None:
    """Bytes at the peak with ``options``; None where it cannot be built or counted so."""
    changed = copy.deepcopy(cfg)
    try:
        changed.merge_from_dict(options)
        check_config(changed)
        return count_step(changed, W, images).peak
    except (NotCounted, ValueError, TypeError):
        return None


def what_to_change(cfg: Config, W: int, images: int | None, peak: int, memory: int) -> list[tuple[str, int, str]]:
    """(options for ``--cfg-options``, bytes at the peak with them, what they cost), the most effective first.

    Then the best of them together, one more each time, until the step fits.
    """
    found = [(counted_with(cfg, W, images, options), options, cost) for options, cost in changes(cfg, W)]
    better = sorted((x for x in found if x[0] is not None and x[0] < 0.99 * peak), key=lambda x: x[0])
    lines = [(words(options), bytes_, cost) for bytes_, options, cost in better]
    together = better[0][1] if better and better[0][0] > memory else None
    for _, options, _ in better[1:] if together else ():
        together = {**together, **options}
        if (bytes_ := counted_with(cfg, W, images, together)) is not None:
            lines.append((words(together), bytes_, 'together'))
            if bytes_ <= memory:
                break
    return lines
