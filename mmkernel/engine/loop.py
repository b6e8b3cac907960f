"""The training loop: epochs of optimizer steps, each on one batch or on a virtual batch of several."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from mmengine.dataset import default_collate, pseudo_collate
from torch import nn
from torch.utils.data import BatchSampler, DataLoader
from torch.utils.data import default_collate as torch_default_collate

from mmkernel.checks import check_numbers
from mmkernel.datasets import BalancedSampler, EpochSampler, collate_views
from mmkernel.datasets.sources import left_out_text
from mmkernel.distributed import bounds_over_ranks, check_equal_rows, equal_rows, world_size
from mmkernel.engine.clocks import check_last_batch
from mmkernel.engine.hooks import dataset_of, unwrap
from mmkernel.engine.learning_rates import micro_batches
from mmkernel.engine.process_state import set_random_state
from mmkernel.engine.virtual_batch import virtual_step
from mmkernel.engine.waiting import Waiting
from mmkernel.registry import LOOPS


@LOOPS.register_module(name=['EpochBasedTrainLoop', 'PretrainLoop'])
class EpochLoop:
    """Epochs of optimizer steps, each on a batch of the loader or on a virtual batch of several.

    ``train_cfg=dict(max_epochs=..., virtual_batch=4096)``: each process takes virtual_batch / (batch_size x processes)
    micro-batches of the loader as one batch (``mmkernel.engine.virtual_batch``); ValueError where that cannot be. A hook ends
    the run after its epoch with ``runner.train_loop.stop_training = True``.
    """

    def __init__(self, runner: Any, dataloader: DataLoader, max_epochs: int, virtual_batch: int | None = None) -> None:
        check_numbers('train_cfg', whole=True, max_epochs=max_epochs)
        self.runner, self.max_epochs, self.virtual_batch = runner, int(max_epochs), virtual_batch
        self.dataloader = self._grouped(dataloader) if virtual_batch else dataloader
        self.micro_batches = getattr(self.dataloader, 'count', 1)  # of one step
        self.max_iters = self.max_epochs * len(self.dataloader)
        self._epoch, self._iter, self._batch, self._told, self.stop_training = 0, 0, 0, '', False
        self.random_state: dict | None = None  # of a run that was resumed inside an epoch
        self.equal = EqualBatches(dataloader)
        self.waiting = Waiting(next((p.device for p in runner.model.parameters()), torch.device('cpu')))
        if batch := dataloader.batch_size:
            check_last_batch(unwrap(runner.model), len(dataloader.sampler), batch, dataloader.drop_last)

    epoch = property(lambda self: self._epoch)
    iter = property(lambda self: self._iter)
    batch = property(lambda self: self._batch)  # batches of this epoch that were used; None after the last

    def run(self) -> nn.Module:
        runner, call = self.runner, self.runner.call_hook
        call('before_train')
        while self._epoch < self.max_epochs and not self.stop_training:
            call('before_train_epoch')
            runner.model.train()
            self._run_epoch()
            call('after_train_epoch')
            self._epoch, self._batch = self._epoch + 1, 0
            self.tell_left_out()
        call('after_train')
        return runner.model

    def _run_epoch(self) -> None:
        runner, call, start = self.runner, self.runner.call_hook, self._batch
        batches = self.waiting.batches(self._from(start) if start else self.dataloader)
        try:
            for i, batch in enumerate(batches, start):
                call('before_train_iter', batch_idx=i, data_batch=batch)
                with self.equal(batch):
                    if isinstance(batch, MicroBatches):
                        outputs = virtual_step(runner.model, batch, runner.optim_wrapper)
                    else:
                        outputs = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
                self._batch = i + 1
                call('after_train_iter', batch_idx=i, data_batch=batch, outputs=outputs)
                self._iter += 1
        finally:
            del batches  # ends the workers now, also after an error, whose traceback holds this frame
        self._batch = None

    def _from(self, start: int) -> Iterator:
        """The batches of the epoch from number ``start`` on, with the random state that the checkpoint was written in.

        Our samplers leave out what was used; of others, batches are loaded and dropped.
        """
        sampler, plan = self.dataloader.sampler, self.dataloader.batch_sampler
        if isinstance(sampler, EpochSampler) and type(plan) is BatchSampler:
            sampler.set_epoch(self._epoch, start * plan.batch_size * self.micro_batches)
            batches = islice(iter(self.dataloader), len(self.dataloader) - start)
        else:
            batches = iter(self.dataloader)
            next(islice(batches, start, start), None)
        if self.random_state is not None:
            set_random_state(self.random_state)
        return batches

    def _grouped(self, loader: DataLoader) -> 'DataLoader | VirtualBatches':
        """The loader, or its batches in groups if a step takes more than one."""
        size, rows, W = loader.batch_sampler.batch_size, self.virtual_batch, self.runner.world_size
        if (k := micro_batches(rows, size, W, loader.batch_sampler.drop_last)) == 1:
            return loader
        if not hasattr(model := unwrap(self.runner.model), 'roots'):
            raise ValueError(
                f'train_cfg.virtual_batch needs a JointEmbedding or its roots(), got {type(model).__name__}.'
            )
        if len(loader) < k:
            raise ValueError(f'train_cfg.virtual_batch = {rows} takes {k} batches, but an epoch has {len(loader)}.')
        self.runner.logger.info(
            f'Virtual batch {rows} = {size} x {W} process(es) x {k} micro-batches; the last {len(loader) % k} of each epoch '
            'are left out.'
        )
        return VirtualBatches(loader, k)

    def tell_left_out(self) -> None:
        text = left_out_text(getattr(dataset_of(self.runner), 'source', None))
        if text != self._told:
            self._told = text
            self.runner.logger.warning(text)


class MicroBatches(list):
    """The micro-batches of a step; ``batch['sample_index']`` concatenates an entry of all of them, as hooks expect."""

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        parts = [batch[key] for batch in self]
        if isinstance(parts[0], (list, tuple)):  # views
            return [torch.cat(view) for view in zip(*parts, strict=True)]
        return torch.cat(parts)


class VirtualBatches:
    """A loader whose batches come ``count`` at a time as ``MicroBatches``; the rest of an epoch is not loaded."""

    def __init__(self, loader: DataLoader, count: int) -> None:
        self.micro_batches, self.count = loader, count

    def __len__(self) -> int:
        return len(self.micro_batches) // self.count

    def __iter__(self) -> Iterator[MicroBatches]:
        batches = iter(self.micro_batches)
        for _ in range(len(self)):
            yield MicroBatches(islice(batches, self.count))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['micro_batches'], name)


class EqualBatches:
    """``with equal(batch):`` around a step on that batch: gathers inside it need not compare the numbers of rows again.

    With our samplers the processes compare the batches of an epoch once, here. With other samplers, batch samplers and
    collate functions they compare the number of batches here, and the rows of each before its step. No device is waited
    for. ValueError, in every process alike, where batches differ.
    """

    def __init__(self, loader: Any) -> None:
        sampler, batches, collate = loader.sampler, loader.batch_sampler, loader.collate_fn
        keeps_all = (collate_views, default_collate, pseudo_collate, torch_default_collate)
        self.fixed = type(sampler) in (EpochSampler, BalancedSampler) and type(batches) is BatchSampler
        self.fixed = self.fixed and getattr(collate, 'func', collate) in keeps_all
        # batches of an epoch, and rows of a shorter last one where they are fixed
        self.plan = len(loader), len(sampler) % batches.batch_size if self.fixed and not batches.drop_last else 0
        (least, most), (fewest, largest) = bounds_over_ranks(*self.plan) if world_size() > 1 else ((0, 0), (0, 0))
        if least != most or fewest != largest:
            raise ValueError(
                f'An epoch has from {least} to {most} batches on the {world_size()} processes, and a shorter last one of '
                f'{fewest} to {largest} images (0: none); a step needs equal ones. Set train_dataloader.sampler.round_up=True, '
                'and check that every machine has the same images.'
            )

    def __call__(self, batch: Any) -> AbstractContextManager:
        rows = rows_of(batch) if world_size() > 1 else None
        if rows is None:  # each gather compares
            return nullcontext()
        if not self.fixed:
            check_equal_rows(rows)
        return equal_rows()


def rows_of(batch: Any) -> int | None:
    """The number of images of a batch, or of all its micro-batches; None if it is unknown."""
    if isinstance(batch, list):
        rows = [rows_of(part) for part in batch]
        return None if None in rows or not rows else sum(rows)
    found = batch.get('sample_index', batch.get('label')) if isinstance(batch, Mapping) else None
    return None if found is None else len(found)
