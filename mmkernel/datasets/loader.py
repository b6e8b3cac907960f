"""The loader of a training set from its config."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .sampler import part_of_epoch


def seed_worker(worker: int) -> None:
    """Seed python and numpy in a loader's worker from torch, which differs by epoch, rank and worker.

    mmengine's default leaves the epoch out, so that workers replay the same draws in every epoch.
    """
    seed = torch.initial_seed()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


def build_dataloader(dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
    """mmengine's, with workers that draw other numbers in each epoch. ``seed``: of the sampler and the data set."""
    if isinstance(dataloader, DataLoader):
        return dataloader
    dataloader = part_of_epoch(dataloader)
    if not dataloader.get('num_workers'):  # torch refuses these two without workers
        dataloader.pop('prefetch_factor', None)
        dataloader.pop('persistent_workers', None)
    if not torch.cuda.is_available():
        dataloader.pop('pin_memory', None)  # torch warns: there is nothing to pin for
    loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
    if 'worker_init_fn' not in dataloader:
        loader.worker_init_fn = seed_worker
    # workers are seeded from a stream of their own (SeedHook sets it): starting them, which happens at other times in a
    # resumed run, must not shift the draws of dropout
    loader.generator = torch.Generator()
    dataset = getattr(loader.dataset, '_dataset', loader.dataset)  # num_batch_per_epoch wraps it
    if seed is not None and hasattr(dataset, 'seed'):
        dataset.seed = seed
    return loader


def check_dataloader(dataloader: DataLoader) -> None:
    """ValueError unless there is at least one batch; mmengine would end in a division by zero much later."""
    if len(dataloader):
        return
    images, size = len(dataloader.sampler), dataloader.batch_size
    raise ValueError(
        f'{images} images per process make no batch of {size} with drop_last=True. Set train_dataloader.batch_size to '
        f'at most {images}, use fewer processes, or check that the data folder is complete.'
    )
