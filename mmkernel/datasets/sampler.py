"""The order of an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmkernel.registry import DATA_SAMPLERS

from .draws import ORDER, generator


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler):
    """(epoch, index) of each image of this rank; the epoch travels with the index, so that persistent workers know it.

    All ranks make the same permutation from (seed, epoch); rank r takes positions r, r + W, r + 2W, ...
    round_up=True: the first images are repeated until all ranks have equally many, as torch's DistributedSampler does;
    False: none are, and ranks may differ by one image.
    ValueError if the dataset is empty.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = 0, round_up: bool = True) -> None:
        self.rank, self.world_size = get_dist_info()
        if len(dataset) == 0:
            raise ValueError(f'{type(dataset).__name__} is empty: there is nothing to sample. Check its source.')
        self.images, self.shuffle, self.round_up, self.epoch = len(dataset), shuffle, round_up, 0
        self.seed = sync_random_seed() if seed is None else seed

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch, on all ranks."""
        self.epoch = int(epoch)

    def order(self) -> np.ndarray:
        """Dataset indices of the current epoch for all ranks together, padded."""
        if self.shuffle:
            # sorted uniforms: numpy promises the stream of `random`, but not that of `permutation`, across its versions
            order = generator(self.seed, self.epoch, purpose=ORDER).random(self.images).argsort(kind='stable')
        else:
            order = np.arange(self.images)
        return np.resize(order, len(self) * self.world_size) if self.round_up else order

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        return ((epoch, index) for index in self.order()[self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        left = self.images if self.round_up else self.images - self.rank
        return math.ceil(left / self.world_size)
