"""Epochs of optimizer steps, each on one batch or on a virtual batch of several."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from mmkernel.datasets.sources import left_out
from mmkernel.engine.clocks import check_even_ranks, check_last_batch
from mmkernel.engine.hooks import unwrap
from mmkernel.engine.scaling import micro_batches
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


@LOOPS.register_module()
class PretrainLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs; with ``virtual_batch``, a step sees that many images, those of all processes counted.

    ``train_cfg=dict(max_epochs=..., virtual_batch=4096)``: each process takes virtual_batch / (batch_size x processes)
    micro-batches of the loader as one batch (``mmkernel.engine.virtual_batch``). Errors: ValueError for a number that is no
    multiple, for accumulation beside it, for micro-batches of unequal size, and for a model without embeddings.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        max_epochs: int,
        virtual_batch: int | None = None,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        self.virtual_batch, self._told = virtual_batch, 0
        if virtual_batch is not None:
            dataloader = self._grouped(runner, dataloader, virtual_batch)
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        loader = self.dataloader
        if hasattr(loader, 'sampler') and loader.batch_size:
            check_even_ranks(loader, runner.world_size)
            check_last_batch(unwrap(runner.model), len(loader.sampler), loader.batch_size, loader.drop_last)

    @staticmethod
    def _grouped(runner: Any, dataloader: DataLoader | dict, virtual_batch: int) -> DataLoader | VirtualBatches:
        """The loader, or its batches in groups if a step takes more than one."""
        loader = dataloader
        if isinstance(loader, dict):
            loader = runner.build_dataloader(loader, runner.seed, runner._randomness_cfg.get('diff_rank_seed', False))
        sampler = loader.batch_sampler
        k = micro_batches(virtual_batch, sampler.batch_size, runner.world_size)
        if k == 1:
            return loader
        if not hasattr(unwrap(runner.model), 'roots'):
            raise ValueError(
                'train_cfg.virtual_batch needs a model whose loss sees images through embeddings alone: a JointEmbedding, or '
                f'one with its methods embeddings, score and roots; got {type(unwrap(runner.model)).__name__}.'
            )
        if not sampler.drop_last:
            raise ValueError(
                'train_cfg.virtual_batch needs micro-batches of one size: set train_dataloader.drop_last=True.'
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

    def run_epoch(self) -> None:
        super().run_epoch()
        source = getattr(getattr(self.dataloader, 'dataset', None), 'source', None)
        found = left_out(source)
        if found and len(found) > self._told:  # by workers, whose warnings reach no log
            self._told, first = len(found), min(found)
            self.runner.logger.warning(
                f'{len(found)} of {len(source)} images cannot be decoded, others stand in for them: {source.name(first)}'
                + (f' and {len(found) - 1} more.' if len(found) > 1 else '.')
            )

    def run_iter(self, idx: int, data_batch: dict | MicroBatches) -> None:
        if not isinstance(self.dataloader, VirtualBatches):
            super().run_iter(idx, data_batch)
            return
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        outputs = virtual_step(runner.model, data_batch, runner.optim_wrapper)
        runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1
