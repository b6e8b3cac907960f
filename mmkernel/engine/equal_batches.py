"""Every process's batch has as many rows: found out on the hosts, before a step, so that no gather inside it need ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.dataset import default_collate, pseudo_collate
from torch.utils.data import BatchSampler
from torch.utils.data import default_collate as torch_default_collate

from mmkernel.datasets import BalancedSampler, EpochSampler
from mmkernel.distributed import bounds_over_ranks, check_equal_rows, equal_rows, world_size

KEEP_ALL_ROWS = (default_collate, pseudo_collate, torch_default_collate)


class EqualBatches:
    """``with equal(batch):`` around a step on that batch.

    With our samplers the processes compare the batches of an epoch once, here; nothing is exchanged in a step. With other
    samplers, batch samplers and collate functions they compare their number here, for a process that has more would wait
    without end, and the rows of each batch. No device is waited for.

    Raises ValueError, in every process alike, where batches differ.
    """

    def __init__(self, loader: Any) -> None:
        if world_size() == 1:
            return
        plan = batch_plan(loader)
        self.fixed = plan is not None
        (least, most), (fewest, largest) = bounds_over_ranks(*(plan or (len(loader), 0)))
        if least != most or fewest != largest:
            of = f', the last of {fewest} to {largest} images,' if largest else ''
            raise ValueError(
                f'An epoch has from {least} to {most} batches{of} on the {world_size()} processes, and a step needs equal ones. '
                'Set train_dataloader.sampler.round_up=True (let a sampler of your own give each process as many samples), and '
                'check that every machine has the same images.'
            )

    @contextmanager
    def __call__(self, batch: Any) -> Iterator[None]:
        rows = rows_of(batch) if world_size() > 1 else None
        if rows is None:  # then each gather asks
            yield
            return
        if not self.fixed:
            check_equal_rows(rows)
        with equal_rows():
            yield


def batch_plan(loader: Any) -> tuple[int, int] | None:
    """(batches of an epoch, rows of the last one) of this process; None where the batches alone can tell."""
    sampler, batches, collate = loader.sampler, loader.batch_sampler, loader.collate_fn
    known = type(sampler) in (EpochSampler, BalancedSampler) and type(batches) is BatchSampler
    if not known or getattr(collate, 'func', collate) not in KEEP_ALL_ROWS:
        return None
    left = 0 if batches.drop_last else len(sampler) % batches.batch_size
    return len(batches), left or batches.batch_size


def rows_of(batch: Any) -> int | None:
    """The images of a batch, or of the micro-batches of a virtual one; None where it does not show them."""
    if isinstance(batch, list):
        rows = [rows_of(part) for part in batch]
        return None if None in rows or not rows else sum(rows)
    found = batch.get('sample_index', batch.get('label')) if isinstance(batch, Mapping) else None
    return None if found is None else len(found)
