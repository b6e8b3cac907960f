"""Epochs of optimizer steps, each on one batch or on a virtual batch of several."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from mmkernel.datasets.sources import left_out_text
from mmkernel.engine.clocks import check_last_batch
from mmkernel.engine.cluster_hook import dataset_of
from mmkernel.engine.equal_batches import EqualBatches
from mmkernel.engine.hooks import unwrap
from mmkernel.engine.learning_rates import micro_batches
from mmkernel.engine.virtual_batch import virtual_step
from mmkernel.registry import LOOPS


class MicroBatches(list):
    """The micro-batches of a step; ``batch['sample_index']`` joins an entry of all of them, for hooks that look at a batch."""

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        parts = [batch[key] for batch in self]
        if isinstance(parts[0], (list, tuple)):  # views
            return [torch.cat(view) for view in zip(*parts, strict=True)]
        return torch.cat(parts)


class VirtualBatches:
    """A loader's batches, ``count`` at a time as ``MicroBatches``; what is left over at the end of an epoch is not loaded.

    Everything else is the loader's own (``sampler``, ``dataset``, ``generator``, ...).
    """

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


def grouped(runner: Any, loader: DataLoader, virtual_batch: int) -> DataLoader | VirtualBatches:
    """The loader, or its batches in groups if a step takes more than one."""
    sampler = loader.batch_sampler
    k = micro_batches(virtual_batch, sampler.batch_size, runner.world_size, sampler.drop_last)
    if k == 1:
        return loader
    if not hasattr(unwrap(runner.model), 'roots'):
        raise ValueError(
            'train_cfg.virtual_batch needs a model whose loss sees images through embeddings alone: a JointEmbedding, or '
            f'one with its methods embeddings, score and roots; got {type(unwrap(runner.model)).__name__}.'
        )
    if len(loader) < k:
        raise ValueError(
            f'train_cfg.virtual_batch = {virtual_batch} takes {k} batches of each process, but an epoch has {len(loader)}.'
        )
    left = len(loader) % k
    runner.logger.info(
        f'Virtual batch {virtual_batch} = {sampler.batch_size} x {runner.world_size} process(es) x {k} micro-batches; '
        f'the last {left} micro-batch(es) of each epoch are left out.'
    )
    return VirtualBatches(loader, k)


@LOOPS.register_module(name=['EpochBasedTrainLoop', 'PretrainLoop'])
class EpochLoop:
    """Epochs of optimizer steps, each on a batch of the loader or on a virtual batch of several.

    ``train_cfg=dict(max_epochs=..., virtual_batch=4096)``: each process takes virtual_batch / (batch_size x processes)
    micro-batches of the loader as one batch (``mmkernel.engine.virtual_batch``). Errors: ValueError for a number that is no
    multiple, for accumulation beside it, for micro-batches of unequal size, and for a model without embeddings. A hook ends
    the run after its epoch with ``runner.train_loop.stop_training = True``.
    """

    def __init__(self, runner: Any, dataloader: DataLoader, max_epochs: int, virtual_batch: int | None = None) -> None:
        self.runner, self.max_epochs, self.virtual_batch = runner, int(max_epochs), virtual_batch
        self.dataloader = grouped(runner, dataloader, virtual_batch) if virtual_batch else dataloader
        self.max_iters = self.max_epochs * len(self.dataloader)
        self._epoch, self._iter, self._told, self.stop_training = 0, 0, '', False
        self.equal = EqualBatches(dataloader)
        if batch := dataloader.batch_size:
            check_last_batch(unwrap(runner.model), len(dataloader.sampler), batch, dataloader.drop_last)

    epoch = property(lambda self: self._epoch)
    iter = property(lambda self: self._iter)

    def run(self) -> nn.Module:
        runner, call = self.runner, self.runner.call_hook
        call('before_train')
        while self._epoch < self.max_epochs and not self.stop_training:
            call('before_train_epoch')
            runner.model.train()
            for i, batch in enumerate(self.dataloader):
                call('before_train_iter', batch_idx=i, data_batch=batch)
                with self.equal(batch):
                    outputs = self.step(batch)
                call('after_train_iter', batch_idx=i, data_batch=batch, outputs=outputs)
                self._iter += 1
            call('after_train_epoch')
            self._epoch += 1
            self.tell_left_out()
        call('after_train')
        return runner.model

    def step(self, batch: Any) -> dict:
        """Forward, backward and what the optimizer makes of it; returns what is logged."""
        model, wrapper = self.runner.model, self.runner.optim_wrapper
        if isinstance(batch, MicroBatches):
            return virtual_step(model, batch, wrapper)
        return model.train_step(batch, optim_wrapper=wrapper)

    def tell_left_out(self) -> None:
        text = left_out_text(getattr(dataset_of(self.runner), 'source', None))
        if text != self._told:
            self._told = text
            self.runner.logger.warning(text)
